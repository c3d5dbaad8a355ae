"""The base of the models and repositories: fields, rows, conditions."""
