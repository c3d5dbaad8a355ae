-- Checks of single values. PostgreSQL runs them when such a column is written, not (as a table's) at every UPDATE.

CREATE DOMAIN name_text AS text CHECK (char_length(VALUE) BETWEEN 1 AND 255);

CREATE DOMAIN object_jsonb AS jsonb CHECK (jsonb_typeof(VALUE) = 'object');

-- double() fails, and with it the check, for a number too small for a float8.
CREATE DOMAIN retry_policy AS jsonb CHECK (
    VALUE @? 'strict $ ? (
        @.base >= 0.001 && @.base <= 1e9 && @.factor >= 1 && @.factor <= 1000
        && @.cap >= 0.001 && @.cap <= 1e9 && @.jitter >= 0 && @.jitter <= 1 && @.jitter.double() >= 0
    )'
);
