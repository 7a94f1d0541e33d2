"""Videos of policies before and after adaptation."""
