-- Checks of single values. PostgreSQL runs them when such a column is written, not (as a table's) at every UPDATE.

CREATE DOMAIN retry_policy AS jsonb CHECK (
    VALUE @? 'strict $ ? (
        @.base >= 0.001 && @.base <= 1e9 && @.factor >= 1 && @.factor <= 1000
        && @.cap >= 0.001 && @.cap <= 1e9 && @.jitter >= 0 && @.jitter <= 1
    )'
);
