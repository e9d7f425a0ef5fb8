"""Teachers: where off-policy supervision comes from."""
