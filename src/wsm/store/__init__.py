"""PostgreSQL: the truth. Queries by name in `sql/`, migrations, row-level security in every table."""
