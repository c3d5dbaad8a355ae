"""The platform's catalogue: connectors, tools, schemas, templates, runs, evaluations, audit."""
