"""Functions: what joins the database and the isolates into calls."""
