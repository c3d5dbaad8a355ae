-- The functions of the columns that are generated from a content.

-- convert_to() is only stable, since it looks encodings up by name; for UTF8 the answer never changes.
CREATE FUNCTION content_sha256(content text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN sha256(convert_to(content, 'UTF8'));

-- A tsvector is limited to 1 MB: if a text has more different words, only its beginning is searched.
CREATE FUNCTION content_search(content text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    -- The parser reads ahead to the end of a run without blanks, or of a comment, again for each piece of it.
    content := regexp_replace(replace(content, '<!--', ' '), '[^[:space:]]{255}', E'\\& ', 'g');
    LOOP
        BEGIN
            RETURN to_tsvector('pg_catalog.english', content);
        EXCEPTION WHEN program_limit_exceeded THEN
            content := left(content, length(content) / 2);
        END;
    END LOOP;
END
$$;
