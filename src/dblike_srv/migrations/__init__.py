"""What brings a database from an older release's schema to this one's, by alembic."""
