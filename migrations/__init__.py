"""The versioned migrations of the schema, for peewee-migrate."""
