"""Every shape annotation of the library is checked at run time while the tests run."""

from jaxtyping import install_import_hook

install_import_hook(["metarl", "envs"], "beartype.beartype")
