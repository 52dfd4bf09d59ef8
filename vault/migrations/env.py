"""Runs the migrations on the connection, and inside the transaction, that vault.schema hands in."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
