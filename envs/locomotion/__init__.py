"""Families of MuJoCo bodies that run, walk and swim."""
