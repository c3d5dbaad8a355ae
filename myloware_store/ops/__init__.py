"""What an operator runs: migrations, validation, bringing a database up."""
