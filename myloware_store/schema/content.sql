-- The functions of a content: its hash, its words, and whether it matches a query.

-- convert_to() is only stable, since it looks encodings up by name; for UTF8 the answer never changes.
CREATE FUNCTION content_sha256(content text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN sha256(convert_to(content, 'UTF8'));

-- A tsvector is limited to 1 MB: of a content with more different words it holds those of the beginning, and a blank, which
-- the parser never returns.
CREATE FUNCTION content_search(content text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    beyond tsvector := '';
BEGIN
    -- The parser reads ahead to the end of a run without blanks, or of a comment, again for each piece of it.
    content := replace(replace(content, '<!--', ' '), '_', ' ');
    content := regexp_replace(content, '[^[:space:]]{255}', E'\\& ', 'g');
    LOOP
        BEGIN
            RETURN to_tsvector('pg_catalog.english', content) || beyond;
        EXCEPTION WHEN program_limit_exceeded THEN
            content := left(content, length(content) / 2);
            beyond := $blank$' '$blank$;
        END;
    END LOOP;
END
$$;

-- Whether a content matches, however many words it has: beyond the limit it is read in pieces, too small to reach it, of
-- which only the query's words are kept, and the last word, from which the positions of the next piece are counted.
CREATE FUNCTION content_matches(content text, query tsquery) RETURNS bool LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    words tsvector := content_search(content);
    asked text[];
    piece text;
BEGIN
    IF words @@ $blank$' '$blank$ THEN
        asked := ARRAY(
            SELECT replace(quoted[1], '''''', '''')
            FROM regexp_matches(query::text, '''((?:[^'']|'''')*)''', 'g') AS quoted
        );
        content := replace(replace(content, '<!--', ' '), '_', ' ');
        content := regexp_replace(content, '[^[:space:]]{255}', E'\\& ', 'g') || ' ';
        words := '';
        WHILE content <> '' LOOP
            piece := regexp_replace(left(content, 20000), '[^[:space:]]+$', '');
            content := substr(content, length(piece) + 1);
            words := words || (
                SELECT ts_filter(setweight(of_piece, 'A', asked || ARRAY(
                    SELECT lexeme FROM unnest(of_piece) ORDER BY positions[cardinality(positions)] DESC LIMIT 1
                )), '{a}')
                FROM to_tsvector('pg_catalog.english', piece) AS of_piece
            );
        END LOOP;
    END IF;
    RETURN words @@ query;
END
$$;
