"""Create the fifteen tables with their enum types, constraints, indexes, guards and roll-up.

Frozen: a later change is a later migration. Statements hold no percent sign, which peewee-migrate would take for a
parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import peewee
    from peewee_migrate import Migrator

EXTENSIONS = (
    "CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public",
    # Nothing depends on it; many servers don't offer it, or offer it but cannot load it.
    """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'uuid-ossp') THEN
            CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        RAISE NOTICE USING MESSAGE = 'uuid-ossp is left out: ' || SQLERRM;
    END
    $$
    """,
)

TYPES = (
    # Counters fit in 32 bits; the domains are as old as their tables.
    """
    -- squawk-ignore-file prefer-bigint-over-int, ban-create-domain-with-constraint
    CREATE TYPE work_order_status AS ENUM ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED')
    """,
    "CREATE TYPE priority AS ENUM ('LOW', 'MEDIUM', 'HIGH', 'URGENT')",
    "CREATE TYPE work_item_type AS ENUM ('INVOICE', 'TICKET', 'STATUS_REPORT')",
    "CREATE TYPE work_item_status AS ENUM ('QUEUED', 'PROCESSING', 'COMPLETED', 'FAILED')",
    "CREATE TYPE attempt_status AS ENUM ('STARTED', 'COMPLETED', 'FAILED', 'TIMEOUT')",
    "CREATE TYPE mem_doc_type AS ENUM ('CONTEXT', 'KNOWLEDGE', 'TEMPLATE')",
    "CREATE TYPE approval_decision AS ENUM ('APPROVED', 'REJECTED', 'ESCALATED')",
    "CREATE TYPE connector_type AS ENUM ('SLACK', 'EMAIL', 'API', 'DATABASE')",
    "CREATE TYPE connector_status AS ENUM ('ACTIVE', 'INACTIVE', 'ERROR')",
    "CREATE DOMAIN name_text AS text CHECK (char_length(VALUE) BETWEEN 1 AND 255)",
    "CREATE DOMAIN object_jsonb AS jsonb CHECK (jsonb_typeof(VALUE) = 'object')",
    """
    CREATE DOMAIN retry_policy AS jsonb CHECK (
        VALUE @? 'strict $ ? (
            @.base >= 0.001 && @.base <= 1e9 && @.factor >= 1 && @.factor <= 1000
            && @.cap >= 0.001 && @.cap <= 1e9 && @.jitter >= 0 && @.jitter <= 1 && @.jitter.double() >= 0
        )'
    )
    """,
)

FUNCTIONS = (
    # The functions refer to tables that are created later.
    "SET LOCAL check_function_bodies = off",
    """
    CREATE FUNCTION content_sha256(content text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sha256(convert_to(content, 'UTF8'))
    """,
    r"""
    CREATE FUNCTION unspaced_scripts() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u3005-\u3007\u3040-\u30FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7AF'
        '\uF900-\uFAFF\U00020000-\U0003FFFF'
    """,
    r"""
    CREATE FUNCTION content_letters(content text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    DECLARE
        -- Marks inside words that nobody sees: soft hyphens, joiners, directions, variants.
        unseen CONSTANT text := '[\u00AD\u034F\u061C\u180E\u200C-\u200F\u202A-\u202E\u2060-\u206F\uFE00-\uFE0F\uFEFF]+';
        hyphens CONSTANT text := '[\u2010-\u2013\u2212\uFE63\uFF0D]';
        -- Punctuation, symbols and blanks: of Western texts, and all of Unicode 14 (categories P, S, Z, Cc and Co of
        -- the Basic Multilingual Plane, music and emoji).
        western CONSTANT text := '[\u0080-\u00A9\u00AB\u00AC\u00AE-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u2000-\u206F'
            '\u20A0-\u20CF\u2120\u2122]+';
        blanks CONSTANT text := '[\u0009-\u000D\u0080-\u00A9\u00AB-\u00AC\u00AE-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF'
            '\u00D7\u00F7\u02C2-\u02C5'
            '\u02D2-\u02DF\u02E5-\u02EB\u02ED\u02EF-\u02FF\u0375\u037E\u0384-\u0385\u0387\u03F6\u0482\u055A-\u055F'
            '\u0589-\u058F\u05BE\u05C0\u05C3\u05C6\u05F3-\u060F\u061B\u061D-\u061F\u066A-\u066D\u06D4\u06DD-\u06DE'
            '\u06E9\u06FD-\u06FE\u0700-\u070F\u07F6-\u07F9\u07FE-\u07FF\u0830-\u083E\u085E\u0888\u0890-\u0891\u08E2'
            '\u0964-\u0965\u0970\u09F2-\u09F3\u09FA-\u09FB\u09FD\u0A76\u0AF0-\u0AF1\u0B70\u0BF3-\u0BFA\u0C77\u0C7F'
            '\u0C84\u0D4F\u0D79\u0DF4\u0E3F\u0E4F\u0E5A-\u0E5B\u0F01-\u0F17\u0F1A-\u0F1F\u0F34\u0F36\u0F38'
            '\u0F3A-\u0F3D\u0F85\u0FBE-\u0FC5\u0FC7-\u0FDA\u104A-\u104F\u109E-\u109F\u10FB\u1360-\u1368\u1390-\u1399'
            '\u1400\u166D-\u166E\u1680\u169B-\u169C\u16EB-\u16ED\u1735-\u1736\u17D4-\u17D6\u17D8-\u17DB\u1800-\u180A'
            '\u1940-\u1945\u19DE-\u19FF\u1A1E-\u1A1F\u1AA0-\u1AA6\u1AA8-\u1AAD\u1B5A-\u1B6A\u1B74-\u1B7E\u1BFC-\u1BFF'
            '\u1C3B-\u1C3F\u1C7E-\u1C7F\u1CC0-\u1CC7\u1CD3\u1FBD\u1FBF-\u1FC1\u1FCD-\u1FCF\u1FDD-\u1FDF\u1FED-\u1FEF'
            '\u1FFD-\u206F\u207A-\u207E\u208A-\u208E\u20A0-\u20C0\u2100-\u2101\u2103-\u2106'
            '\u2108-\u2109\u2114\u2116-\u2118\u211E-\u2123\u2125\u2127\u2129\u212E\u213A-\u213B\u2140-\u2144'
            '\u214A-\u214D\u214F\u218A-\u244A\u249C-\u24E9\u2500-\u2775\u2794-\u2BFF\u2CE5-\u2CEA'
            '\u2CF9-\u2CFC\u2CFE-\u2CFF\u2D70\u2E00-\u2E2E\u2E30-\u3004\u3008-\u3020\u3030\u3036-\u3037\u303D-\u303F'
            '\u309B-\u309C\u30A0\u30FB\u3190-\u3191\u3196-\u319F\u31C0-\u31E3\u3200-\u321E\u322A-\u3247\u3250'
            '\u3260-\u327F\u328A-\u32B0\u32C0-\u33FF\u4DC0-\u4DFF\uA490-\uA4C6\uA4FE-\uA4FF\uA60D-\uA60F\uA673\uA67E'
            '\uA6F2-\uA716\uA720-\uA721\uA789-\uA78A\uA828-\uA82B\uA836-\uA839\uA874-\uA877\uA8CE-\uA8CF\uA8F8-\uA8FA'
            '\uA8FC\uA92E-\uA92F\uA95F\uA9C1-\uA9CD\uA9DE-\uA9DF\uAA5C-\uAA5F\uAA77-\uAA79\uAADE-\uAADF\uAAF0-\uAAF1'
            '\uAB5B\uAB6A-\uAB6B\uABEB\uE000-\uF8FF\uFB29\uFBB2-\uFBC2\uFD3E-\uFD4F\uFDCF\uFDFC-\uFDFF\uFE10-\uFE19'
            '\uFE30-\uFE62\uFE64-\uFE6B\uFF01-\uFF0A\uFF1B-\uFF1F\uFF3B-\uFF3E\uFF40\uFF5B-\uFF65\uFFE0-\uFFFD'
            '\U0001D000-\U0001D3FF\U0001F000-\U0001FAFF]+';
        -- Whatever an accent may be among: all but the letters of Western and of unspaced scripts.
        endless CONSTANT text := '[^\u0001-\u02FF\u0E01-\u0E30\u0E81-\u0EB0\u1000-\u102A\u1780-\u17B3\u3041-\u3096'
            '\u30A1-\u30FF\u3400-\u9FFF\uAC00-\uD7AF]';
        accents CONSTANT text := '[\u0300-\u036F\u0591-\u05BD\u05BF\u05C1\u05C2\u05C4\u05C5\u05C7\u064B-\u065F\u0670]';
        special CONSTANT text := '[ßæðøđħıłœŧς]';
        bare text := regexp_replace(regexp_replace(content, unseen, '', 'g'), hyphens, '-', 'g');
        accented text;
        forms text := '';
    BEGIN
        bare := regexp_replace(bare, western, ' ', 'g');
        IF octet_length(bare) = length(bare) THEN
            RETURN ARRAY[bare, forms];
        END IF;
        -- normalize() sorts accents in a row in a time that grows with the square of their number.
        IF bare ~ (endless || '{200}') THEN
            bare := regexp_replace(bare, '(' || endless || '{200})', '\1 ', 'g');
        END IF;
        accented := regexp_replace(normalize(bare, NFKD), blanks, ' ', 'g');
        IF accented ~ '[\u00C6\u00D0\u00D8\u00DE\u0110\u0126\u0141\u0152\u0166\u0391-\u03A9\u0402-\u042F\u1E9E]' THEN
            accented := translate(accented,
                'ÆÐØÞĐĦŁŒŦΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩЂЄЅІЈЉЊЋЏАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯẞ',
                'æðøþđħłœŧαβγδεζηθικλμνξοπρστυφχψωђєѕіјљњћџабвгдежзийклмнопрстуфхцчшщъыьэюяß');
        END IF;
        bare := regexp_replace(accented, accents || '+', '', 'g');
        IF bare ~ special THEN
            bare := replace(replace(replace(translate(bare, 'ðøđħıłŧς', 'dodhiltσ'), 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe');
        END IF;
        IF bare <> accented THEN
            SELECT normalize(lower(string_agg(word[1], ' ') COLLATE "C"), NFC) INTO forms
            FROM regexp_matches(accented, '[^ ]*(?:' || accents || '|' || special || ')[^ ]*', 'g') AS word;
        END IF;
        RETURN ARRAY[normalize(bare, NFC), forms];
    END
    $$
    """,
    r"""
    CREATE FUNCTION content_words(content text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    DECLARE
        -- A digit beside a letter, or on both sides of what joins the parts of an identifier; letters around _.
        codes CONSTANT text := '[0-9][-_./:+,]*[A-Za-z]|[A-Za-z][-_./:+,]*[0-9]|[0-9][-_./:+,]+[0-9]'
            '|[A-Za-z]_+[A-Za-z]';
        -- A word that begins inside another one.
        humps CONSTANT text := '[a-z][A-Z]|[A-Z]{2}[a-z]{2}';
        -- What an identifier may consist of.
        inside CONSTANT text := '[^[:space:]!-*;-@[-^`{-~]*';
        unspaced CONSTANT text := '[' || unspaced_scripts() || ']';
        words text := content;
        forms text := '';
        letters text[];
        found text;
        parts text;
    BEGIN
        IF octet_length(words) > length(words) THEN
            letters := content_letters(words);
            words := letters[1];
            forms := letters[2];
            IF words ~ unspaced THEN
                -- Pairs of neighbours stand for words: ABC is read as AB BC C.
                words := regexp_replace(words, '(' || unspaced || '+)', ' \1 ', 'g');
                words := regexp_replace(words, '(?<=' || unspaced || ')(' || unspaced || ')', '\1 \1', 'g');
            END IF;
        END IF;
        IF words ~ (codes || '|' || humps) THEN
            SELECT string_agg(DISTINCT code[1] COLLATE "C", ' ') INTO found
            FROM regexp_matches(words, inside || '(?:' || codes || '|' || humps || ')' || inside, 'g') AS code;
            parts := regexp_replace(found, '[-+,./:_]+', ' ', 'g');
            IF parts ~ '[0-9][A-Za-z]|[A-Za-z][0-9]' THEN
                -- No sums and keys of letters and digits by turns.
                parts := regexp_replace(parts, '[^ ]*[0-9][A-Za-z]+[0-9]+[A-Za-z]+[0-9]+[A-Za-z][^ ]*', '', 'g');
                parts := regexp_replace(parts, '([0-9])(?=[A-Za-z])|([A-Za-z])(?=[0-9])', '\1\2 ', 'g');
                forms := forms || ' ' || parts;
            END IF;
            IF parts ~ humps THEN
                parts := regexp_replace(parts, '([A-Z])(?=[A-Z][a-z]{2})|([a-z])(?=[A-Z])', '\1\2 ', 'g');
                forms := forms || ' ' || parts;
            END IF;
            found := regexp_replace(found, '[-+,./:_]+', '', 'g');
            IF found ~ '[0-9]' THEN
                -- 1.5 is not found by 15.
                found := regexp_replace(found, '(?<![^ ])[0-9]{1,3}(?![^ ])', '', 'g');
            END IF;
            forms := lower(forms || ' ' || found COLLATE "C");
        END IF;
        words := lower(words COLLATE "C");
        -- What joins words, and what the parser would take for an address, a tag or a number with a sign: some of these
        -- it reads again for each part.
        words := replace(replace(replace(replace(replace(words, '-', ' '), '_', ' '), '.', ' '), '/', ' '), ':', ' ');
        words := replace(replace(replace(replace(words, '@', ' '), '+', ' '), '<', ' '), '&', ' ');
        words := replace(words, '~', ' ');
        RETURN ARRAY[words, forms];
    END
    $$
    """,
    """
    CREATE FUNCTION content_search(content text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    DECLARE
        words text[] := content_words(content);
        beyond tsvector := '';
    BEGIN
        IF octet_length(content) < 100000 THEN
            -- Without the subtransaction of a handler.
            RETURN to_tsvector('pg_catalog.english', words[1]) || CASE
                WHEN words[2] <> '' THEN setweight(to_tsvector('pg_catalog.english', words[2]), 'C') ELSE '' END;
        END IF;
        LOOP
            BEGIN
                RETURN to_tsvector('pg_catalog.english', words[1])
                    || setweight(to_tsvector('pg_catalog.english', words[2]), 'C') || beyond;
            EXCEPTION WHEN program_limit_exceeded THEN
                words := ARRAY[left(words[1], length(words[1]) / 2), left(words[2], length(words[2]) / 2)];
                beyond := $blank$' '$blank$;
            END;
        END LOOP;
    END
    $$
    """,
    r"""
    CREATE FUNCTION content_matches(content text, query tsquery) RETURNS bool LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    DECLARE
        found tsvector := content_search(content);
        asked text[];
        beginnings text[];
        words text[];
        rest text;
        piece text;
    BEGIN
        IF found @@ $blank$' '$blank$ THEN
            SELECT array_agg(word) FILTER (WHERE quoted[2] IS NULL), array_agg(word) FILTER (WHERE quoted[2] = ':*')
            INTO asked, beginnings
            FROM regexp_matches(query::text, '''((?:[^'']|'''')*)''(:\*)?', 'g') AS quoted,
                LATERAL (SELECT replace(quoted[1], '''''', '''')) AS unquoted (word);
            words := content_words(content);
            rest := words[1] || ' ' || words[2] || ' ';
            found := '';
            WHILE rest <> '' LOOP
                piece := regexp_replace(left(rest, 20000), '(.)[^[:space:]]+$', '\1');
                rest := substr(rest, length(piece) + 1);
                found := found || (
                    SELECT ts_filter(setweight(of_piece, 'A', ARRAY(
                        SELECT lexeme FROM unnest(of_piece)
                        WHERE lexeme = ANY (asked)
                            OR EXISTS (SELECT FROM unnest(beginnings) AS beginning WHERE starts_with(lexeme, beginning))
                    ) || ARRAY(
                        SELECT lexeme FROM unnest(of_piece) ORDER BY positions[cardinality(positions)] DESC LIMIT 1
                    )), '{a}')
                    FROM to_tsvector('pg_catalog.english', piece) AS of_piece
                );
            END LOOP;
        END IF;
        RETURN found @@ query;
    END
    $$
    """,
    r"""
    CREATE FUNCTION query_words(typed text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    DECLARE
        unspaced CONSTANT text := '[' || unspaced_scripts() || ']';
        words text[] := content_words(typed);
        hyphen CONSTANT text := '(?<=[A-Za-z])-+(?=[A-Za-z])';
    BEGIN
        IF typed ~ hyphen THEN
            words[2] := words[2] || ' ' || (content_words(regexp_replace(typed, hyphen, '', 'g')))[1];
        END IF;
        RETURN words[2] || ' ' || regexp_replace(
            words[1], '(' || unspaced || '{2}) ' || unspaced || '(?!' || unspaced || ')', '\1', 'g'
        );
    END
    $$
    """,
    """
    CREATE FUNCTION query_terms(typed text) RETURNS TABLE (term tsquery, word text) LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT
            (quote_literal(stem) || CASE WHEN stem ~ unspaced THEN ':*' ELSE '' END)::tsquery AS term,
            min(lexeme) AS word
        FROM (SELECT '^[' || unspaced_scripts() || ']$') AS alone (unspaced),
            unnest(to_tsvector('pg_catalog.simple', query_words(typed))),
            unnest(tsvector_to_array(to_tsvector('pg_catalog.english', lexeme))) AS stem
        GROUP BY stem, unspaced
    $$
    """,
    """
    CREATE FUNCTION query_beginnings(typed text) RETURNS SETOF text LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT DISTINCT lexeme
        FROM (
            SELECT lexeme, place, max(place) OVER () AS last
            FROM unnest(to_tsvector('pg_catalog.simple', query_words(typed))), LATERAL unnest(positions) AS place
        ) AS words
        WHERE to_tsvector('pg_catalog.english', lexeme) <> '' OR place = last
    $$
    """,
    """
    CREATE FUNCTION query_stems(beginning text, inside bool) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT COALESCE(array_agg(DISTINCT stem), '{}')
        FROM (SELECT CASE WHEN inside THEN 'bababa' ELSE '' END) AS other (before),
        LATERAL unnest(to_tsvector('pg_catalog.english', (
            SELECT string_agg(before || beginning || ending, ' ') FROM unnest(string_to_array(
                ',ble,e,g,ng,n,y,ted,ling,d,ed,r,s,nt,ent,ty,on,tion,ion,us,ity,lity,ss,ess,ul,ve,tive,ive', ','
            )) AS ending
        ))),
        LATERAL substr(lexeme, length(before) + 1) AS stem
        WHERE beginning ~ '^[a-z]{2,30}$' AND NOT starts_with(stem, beginning) AND length(stem) > inside::int * 2
    $$
    """,
    """
    CREATE FUNCTION query_beginning(beginning text) RETURNS tsquery LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT string_agg(word, ' | ')::tsquery
        FROM (
            SELECT quote_literal(beginning) || ':*' AS word
            UNION ALL SELECT quote_literal(stem) FROM unnest(query_stems(beginning, false)) AS stem
        ) AS words
    $$
    """,
    """
    CREATE FUNCTION query_spellings(word text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT array_agg(lexeme)
        FROM unnest(to_tsvector('pg_catalog.english', (
            SELECT string_agg(spelling, ' ')
            FROM generate_series(0, length(word)) AS at,
            LATERAL (SELECT left(word, at), substr(word, at + 1)) AS cut (head, tail),
            LATERAL (
                SELECT head || substr(tail, 2)
                UNION ALL SELECT head || substr(tail, 2, 1) || left(tail, 1) || substr(tail, 3)
                UNION ALL SELECT head || letter || substr(tail, n)
                FROM unnest(string_to_array('abcdefghijklmnopqrstuvwxyz', NULL)) AS letter, generate_series(1, 2) AS n
            ) AS s (spelling)
        )))
        WHERE word ~ '^[a-z]{4,30}$' AND lexeme <> ALL (tsvector_to_array(to_tsvector('pg_catalog.english', word)))
    $$
    """,
    """
    CREATE FUNCTION query_row(words text, beginnings bool) RETURNS tsquery LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT CASE WHEN NOT beginnings THEN phraseto_tsquery('pg_catalog.english', words) ELSE COALESCE((
            SELECT string_agg(distance || '(' || query_beginning(lexeme)::text || ')', '' ORDER BY place)
            FROM (
                SELECT lexeme, place, COALESCE(' <' || place - lag(place) OVER (ORDER BY place) || '> ', '') AS distance
                FROM unnest(to_tsvector('pg_catalog.simple', words)) AS word (lexeme, places), unnest(places) AS place
                WHERE to_tsvector('pg_catalog.english', lexeme) <> ''
            ) AS words
        ), '')::tsquery END
    $$
    """,
    r"""
    CREATE FUNCTION query_phrase(typed text, beginnings bool) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT SET client_min_messages = warning AS $$
    DECLARE
        unspaced CONSTANT text := '[' || unspaced_scripts() || ']';
        words text := regexp_replace((content_words(typed))[1], '(' || unspaced || '{2}) ' || unspaced || '\s*$', '\1');
        asked tsquery := query_row(words, beginnings);
    BEGIN
        IF typed ~ '[0-9]|[A-Za-z][-_]+[A-Za-z]|[a-z][A-Z]|[A-Z]{2}[a-z]{2}' THEN
            asked := asked || query_row(replace(words, ' ', ''), beginnings)
                || query_row(regexp_replace(words, '([0-9]+|[a-z]+)', ' \1 ', 'g'), beginnings)
                || query_row((content_words(
                    regexp_replace(typed, '([A-Z])(?=[A-Z][a-z]{2})|([a-z])(?=[A-Z])', '\1\2 ', 'g')
                ))[1], beginnings);
        END IF;
        RETURN regexp_replace(asked::text, '''(' || unspaced || ')''(?!:)', '''\1'':*', 'g')::tsquery;
    END
    $$
    """,
    """
    CREATE FUNCTION query_all(phrases text[], options int[], excluded text[], beginnings bool) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT SET client_min_messages = warning AS $$
    DECLARE
        asked tsquery := '';
        option tsquery := '';
        phrase text;
    BEGIN
        FOR n IN 1 .. cardinality(phrases) LOOP
            IF n > 1 AND options[n] <> options[n - 1] THEN
                asked := asked || option;
                option := '';
            END IF;
            option := option && query_phrase(phrases[n], beginnings);
        END LOOP;
        asked := asked || option;
        FOREACH phrase IN ARRAY excluded LOOP
            asked := asked && !!query_phrase(phrase, beginnings);
        END LOOP;
        RETURN asked;
    END
    $$
    """,
    """
    CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
            MESSAGE = TG_TABLE_NAME || ' cannot move from ' || OLD.status::text || ' to ' || NEW.status::text;
    END
    $$
    """,
    """
    CREATE FUNCTION work_items_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        move CONSTANT text := OLD.status::text || ' to ' || NEW.status::text;
        hint text := '';
    BEGIN
        IF move = 'PROCESSING to QUEUED' THEN
            -- An item can be claimed only while it has tries left.
            UPDATE work_items SET max_attempts = attempt_count + 1 WHERE id = NEW.id AND attempt_count >= max_attempts;
            RETURN NULL;
        ELSIF OLD.status = 'PROCESSING' THEN
            IF EXISTS (
                SELECT FROM approval_events
                WHERE work_item_id = NEW.id
                    AND (NEW.status, decision) IN (('COMPLETED', 'APPROVED'), ('FAILED', 'REJECTED'))
            ) OR (NEW.status = 'FAILED' AND NEW.cancelled_at = NEW.processed_at) THEN
                RETURN NULL;
            ELSIF OLD.awaiting_approval THEN
                hint := ' without a decision';
            ELSE
                -- Failed by hand: only the replay of a letter queues it again.
                INSERT INTO dead_letters (tenant_id, source, event_type, payload, error, retry_count, work_item_id)
                SELECT NEW.tenant_id, 'work_items', NEW.type::text,
                    jsonb_build_object(
                        'work_item_id', NEW.id, 'attempt_id', NEW.current_attempt_id, 'content', NEW.content
                    ),
                    'the item was failed by hand', greatest(NEW.attempt_count - 1, 0), NEW.id
                ON CONFLICT (work_item_id) WHERE replayed_at IS NULL DO NOTHING;
                RETURN NULL;
            END IF;
        ELSIF move = 'FAILED to QUEUED' THEN
            IF EXISTS (
                SELECT FROM dead_letters
                WHERE tenant_id = NEW.tenant_id AND work_item_id = NEW.id AND replayed_at >= OLD.processed_at
            ) THEN
                RETURN NULL;
            END IF;
            hint := ' except by replaying its dead letter';
        ELSIF move = 'QUEUED to FAILED' THEN
            IF NEW.cancelled_at = NEW.processed_at THEN
                RETURN NULL;
            END IF;
            hint := ' except by cancelling it';
        END IF;
        RAISE EXCEPTION USING
            ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
            MESSAGE = 'work_items cannot move from ' || move || hint;
    END
    $$
    """,
    """
    CREATE FUNCTION work_orders_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.open_items <> NEW.open_items OR OLD.failed_items <> NEW.failed_items THEN
            RAISE EXCEPTION USING
                ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
                MESSAGE = 'open_items and failed_items of an order follow its items';
        ELSIF OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (
            ('PENDING', 'PROCESSING'), ('PROCESSING', 'COMPLETED'), ('PROCESSING', 'FAILED'),
            ('COMPLETED', 'PROCESSING'), ('FAILED', 'PROCESSING')
        ) THEN
            RAISE EXCEPTION USING
                ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
                MESSAGE = 'work_orders cannot move from ' || OLD.status::text || ' to ' || NEW.status::text;
        END IF;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION USING
            ERRCODE = 'restrict_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME,
            MESSAGE = TG_TABLE_NAME || ' is append-only';
    END
    $$
    """,
    """
    CREATE FUNCTION work_orders_start_count() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- Items are counted as they are inserted, also when a dump is restored.
        NEW.open_items := 0;
        NEW.failed_items := 0;
        RETURN NEW;
    END
    $$
    """,
    """
    CREATE FUNCTION work_items_inherit_priority() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        SELECT priority INTO NEW.priority FROM work_orders
        WHERE tenant_id = NEW.tenant_id AND id = NEW.work_order_id;
        -- If the order does not exist, the foreign key raises.
        NEW.priority := COALESCE(NEW.priority, 'MEDIUM');
        RETURN NEW;
    END
    $$
    """,
    """
    CREATE FUNCTION work_orders_cancel_items() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- work.cancel() ends the items in the statement that marks their order. This order was marked by hand.
        UPDATE work_items
        SET status = 'FAILED', awaiting_approval = false, cancelled_at = NEW.cancelled_at,
            processed_at = NEW.cancelled_at, updated_at = statement_timestamp()
        WHERE work_order_id = NEW.id AND status IN ('QUEUED', 'PROCESSING');
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE FUNCTION work_items_cancel_item() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- The same for an item.
        UPDATE work_items
        SET status = 'FAILED', awaiting_approval = false, processed_at = NEW.cancelled_at,
            updated_at = statement_timestamp()
        WHERE id = NEW.id;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE FUNCTION mem_docs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM mem_docs WHERE id = NEW.document_id AND tenant_id = NEW.tenant_id) THEN
            RAISE EXCEPTION USING
                ERRCODE = 'foreign_key_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'mem_docs_document_id_fkey',
                MESSAGE = 'the document of a chunk does not exist in its tenant';
        END IF;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE FUNCTION work_items_roll_up() RETURNS trigger LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
    SET enable_nestloop = off
    AS $$
    DECLARE
        ids uuid[];
        opened int[];
        failures int[];
        moves bool[];
        latest timestamptz[];
        claimable bool;
        released bool;
    BEGIN
        -- TRUNCATE fires this, too, and leaves no item in any order.
        IF TG_OP = 'TRUNCATE' THEN
            UPDATE work_orders SET open_items = 0, failed_items = 0, updated_at = now()
            WHERE open_items <> 0 OR failed_items <> 0;
            RETURN NULL;
        END IF;

        -- Per order: the change of its open and failed items, whether an item has left the queue, and whether one
        -- can be claimed.
        IF TG_OP = 'INSERT' THEN
            SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(d.moved), array_agg(d.latest),
                bool_or(d.ready)
            INTO ids, opened, failures, moves, latest, claimable
            FROM (
                SELECT work_order_id AS id,
                    count(*) FILTER (WHERE status IN ('QUEUED', 'PROCESSING')) AS open,
                    count(*) FILTER (WHERE status = 'FAILED') AS failed,
                    bool_or(status <> 'QUEUED') AS moved,
                    -- Restoring a dump is not a change of the order.
                    max(created_at) AS latest,
                    bool_or(status = 'QUEUED' AND available_at <= statement_timestamp()) AS ready
                FROM new_rows GROUP BY work_order_id
            ) AS d;
        ELSIF TG_OP = 'DELETE' THEN
            SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(false)
            INTO ids, opened, failures, moves
            FROM (
                SELECT work_order_id AS id,
                    -count(*) FILTER (WHERE status IN ('QUEUED', 'PROCESSING')) AS open,
                    -count(*) FILTER (WHERE status = 'FAILED') AS failed
                FROM old_rows GROUP BY work_order_id
            ) AS d;
        ELSE
            SELECT array_agg(d.id), array_agg(d.open), array_agg(d.failed), array_agg(d.moved), bool_or(d.ready),
                bool_or(d.free)
            INTO ids, opened, failures, moves, claimable, released
            FROM (
                SELECT work_order_id AS id, sum(open) AS open, sum(failed) AS failed, bool_or(moved) AS moved,
                    bool_or(ready) AS ready, bool_or(free) AS free
                FROM (
                    SELECT work_order_id,
                        (status IN ('QUEUED', 'PROCESSING'))::int AS open,
                        (status = 'FAILED')::int AS failed,
                        status <> 'QUEUED' AS moved,
                        status = 'QUEUED' AND available_at <= statement_timestamp() AS ready,
                        status <> 'PROCESSING' OR awaiting_approval AS free
                    FROM new_rows
                    UNION ALL
                    SELECT work_order_id,
                        -(status IN ('QUEUED', 'PROCESSING'))::int, -(status = 'FAILED')::int, false, false, false
                    FROM old_rows
                ) AS changes
                GROUP BY work_order_id
            ) AS d;
            -- The functions end an attempt in the statement that moves its item. After an UPDATE by hand it is still
            -- open, and would prevent the item's next claim.
            IF released THEN
                UPDATE attempts AS a
                SET status = CASE
                        WHEN a.lease_expires_at <= statement_timestamp() THEN 'TIMEOUT' ELSE 'FAILED'
                    END::attempt_status,
                    error = 'its item was moved by hand', finished_at = statement_timestamp(),
                    updated_at = statement_timestamp(),
                    duration_ms = least(
                        greatest(
                            0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000
                        ),
                        2147483647
                    )
                WHERE a.finished_at IS NULL AND a.work_item_id = ANY (
                    ARRAY(SELECT id FROM new_rows WHERE status <> 'PROCESSING' OR awaiting_approval)
                );
            END IF;
        END IF;
        IF ids IS NULL THEN
            RETURN NULL;
        END IF;

        -- Waiting workers hold this lock shared. If no worker holds it, skip NOTIFY, so that no commit waits for
        -- NOTIFY's lock; a worker that begins to wait gets the lock once this transaction is visible.
        IF claimable AND NOT pg_try_advisory_xact_lock(1836674167, TG_RELID::int) THEN
            PERFORM pg_notify('myloware_work', TG_RELID::text);
        END IF;

        -- Always in the order of their ids, so that two statements never deadlock. The rest after a DELETE is counted
        -- once the order is locked.
        IF cardinality(ids) > 1 OR TG_OP = 'DELETE' THEN
            PERFORM FROM work_orders AS o JOIN unnest(ids, opened, failures, moves) AS d (id, open, failed, moved)
                ON d.id = o.id
            WHERE o.id = ANY (ids)
                AND (TG_OP <> 'UPDATE' OR d.open <> 0 OR d.failed <> 0 OR (d.moved AND o.status = 'PENDING'))
            ORDER BY o.id FOR NO KEY UPDATE OF o;
        END IF;
        UPDATE work_orders AS o
        SET open_items = o.open_items + d.open,
            failed_items = o.failed_items + d.failed,
            updated_at = CASE WHEN TG_OP = 'INSERT' THEN greatest(o.updated_at, least(d.latest, now())) ELSE now() END,
            status = CASE
                WHEN o.open_items + d.open > 0 AND o.status = 'PENDING' AND NOT d.moved THEN 'PENDING'
                WHEN o.open_items + d.open > 0 THEN 'PROCESSING'
                -- An order without items keeps its status.
                WHEN TG_OP <> 'INSERT' AND NOT EXISTS (SELECT FROM work_items WHERE work_order_id = o.id OFFSET 0)
                    THEN o.status
                WHEN o.failed_items + d.failed > 0 THEN 'FAILED'
                ELSE 'COMPLETED'
            END::work_order_status
        FROM unnest(ids, opened, failures, moves, latest) AS d (id, open, failed, moved, latest)
        WHERE o.id = ANY (ids) AND o.id = d.id
            AND (TG_OP <> 'UPDATE' OR d.open <> 0 OR d.failed <> 0 OR (d.moved AND o.status = 'PENDING'));
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE FUNCTION miscounted_work_orders(
        of_tenant text
    ) RETURNS TABLE (order_id uuid, stored text, open int, failed int, due text) LANGUAGE sql STABLE
    AS $$
        WITH counted AS (
            SELECT o.id, o.status, o.open_items, o.failed_items, count(w.id) AS items,
                count(*) FILTER (WHERE w.status IN ('QUEUED', 'PROCESSING'))::int AS open,
                count(*) FILTER (WHERE w.status = 'FAILED')::int AS failed
            FROM work_orders AS o LEFT JOIN work_items AS w ON w.work_order_id = o.id
            WHERE of_tenant IS NULL OR o.tenant_id = of_tenant
            GROUP BY o.id
        ),
        expected AS (
            SELECT *,
                CASE
                    WHEN items = 0 OR (open > 0 AND status = 'PENDING') THEN status
                    WHEN open > 0 THEN 'PROCESSING'
                    WHEN failed > 0 THEN 'FAILED'
                    ELSE 'COMPLETED'
                END AS due
            FROM counted
        )
        SELECT id, concat(status, ', ', open_items, ' open, ', failed_items, ' failed'), open, failed, due::text
        FROM expected WHERE (open_items, failed_items, status) <> (open, failed, due)
        ORDER BY id
    $$
    """,
    """
    CREATE FUNCTION recount_work_orders(of_tenant text) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
    DECLARE
        ids CONSTANT uuid[] := ARRAY(SELECT order_id FROM miscounted_work_orders(of_tenant));
        outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
        counts text;
    BEGIN
        PERFORM FROM work_orders WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
        counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
        RETURN QUERY
        UPDATE work_orders AS o
        SET open_items = m.open, failed_items = m.failed, status = m.due::work_order_status,
            updated_at = statement_timestamp()
        FROM miscounted_work_orders(of_tenant) AS m
        WHERE o.id = m.order_id AND o.id = ANY (ids)
        RETURNING o.id;
        counts := set_config('myloware.counts', outside, true);
    END
    $$
    """,
    """
    CREATE FUNCTION submit_work_order(
        order_id uuid, of_tenant text, of_priority text, workflow text, author text, details jsonb, key text,
        item_ids uuid[], item_types text[], contents text[], available timestamptz, tries int,
        document_types text[], stamps text[], retries jsonb, alone text
    ) RETURNS TABLE (holds bool, created_at timestamptz, metadata jsonb) LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
    AS $$
    #variable_conflict use_column
    DECLARE
        due CONSTANT timestamptz := COALESCE(available, statement_timestamp());
        urgency CONSTANT priority := of_priority;
        outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
        counts text;
    BEGIN
        holds := stamps = ARRAY(
            SELECT concat_ws(' ', id, xmin, ctid) COLLATE "C" FROM schemas
            WHERE is_active AND document_type = ANY (document_types)
            ORDER BY 1
        );
        IF holds THEN
            counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
            INSERT INTO work_orders AS o
                (id, tenant_id, priority, workflow_id, created_by, metadata, idempotency_key, unique_key, retry_policy,
                open_items)
            VALUES (order_id, of_tenant, urgency, workflow, author, details, key, alone, retries, cardinality(item_ids))
            ON CONFLICT DO NOTHING
            RETURNING o.created_at, o.metadata INTO created_at, metadata;
            IF FOUND THEN
                IF contents <> '{}' THEN  -- otherwise the caller copies the items into the table
                    INSERT INTO work_items
                        (id, tenant_id, work_order_id, type, content, priority, available_at, max_attempts)
                    SELECT given.id, of_tenant, order_id, given.type, given.content, urgency, due, tries
                    FROM unnest(item_ids, item_types::work_item_type[], contents) AS given (id, type, content);
                END IF;
                -- As work_items_roll_up() does.
                IF due <= statement_timestamp()
                    AND NOT pg_try_advisory_xact_lock(1836674167, 'work_items'::regclass::oid::int) THEN
                    PERFORM pg_notify('myloware_work', 'work_items'::regclass::oid::text);
                END IF;
            END IF;
            counts := set_config('myloware.counts', outside, true);
        END IF;
        RETURN NEXT;
    END
    $$
    """,
    """
    CREATE FUNCTION submit_work_order_json(given json) RETURNS uuid LANGUAGE plpgsql AS $$
    DECLARE
        o record;
        stored record;
        first_id uuid;
    BEGIN
        SELECT * INTO o FROM json_to_record(given) AS g (
            order_id uuid, tenant_id text, priority text, workflow_id text, created_by text, metadata text, key text,
            item_ids uuid[], types text[], contents text[], available_at timestamptz, max_attempts int,
            document_types text[], stamps text[], retry_policy text, unique_key text
        );
        LOOP
            SELECT s.holds, s.created_at INTO stored
            FROM submit_work_order(
                o.order_id, o.tenant_id, o.priority, o.workflow_id, o.created_by, o.metadata::jsonb, o.key,
                o.item_ids, o.types, o.contents, o.available_at, o.max_attempts,
                o.document_types, o.stamps, o.retry_policy::jsonb, o.unique_key
            ) AS s;
            IF NOT stored.holds AND EXISTS (SELECT FROM work_orders WHERE id = o.order_id) THEN
                RETURN o.order_id;  -- it was stored before they changed
            ELSIF NOT stored.holds THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'object_not_in_prerequisite_state',
                    MESSAGE = 'the active schemas have changed since this statement was made; make it again';
            ELSIF stored.created_at IS NOT NULL THEN
                RETURN o.order_id;
            END IF;
            SELECT id INTO first_id FROM work_orders WHERE tenant_id = o.tenant_id AND idempotency_key = o.key;
            IF FOUND AND ARRAY(
                SELECT type::text || ' ' || content AS item FROM work_items
                WHERE work_order_id = first_id ORDER BY item
            ) <> ARRAY(
                SELECT type || ' ' || content AS item FROM unnest(o.types, o.contents) AS g (type, content)
                ORDER BY item
            ) THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'unique_violation', TABLE = 'work_orders',
                    CONSTRAINT = 'work_orders_tenant_id_idempotency_key_key',
                    MESSAGE = 'the idempotency key was used before, with other items, for order ' || first_id;
            ELSIF NOT FOUND THEN
                SELECT id INTO first_id FROM work_orders
                WHERE id = o.order_id
                    OR (tenant_id = o.tenant_id AND unique_key = o.unique_key AND status IN ('PENDING', 'PROCESSING'))
                ORDER BY id = o.order_id DESC LIMIT 1;
            END IF;
            IF first_id IS NOT NULL THEN
                RETURN first_id;
            END IF;
            -- The order with the unique key has ended meanwhile.
        END LOOP;
    END
    $$
    """,
    """
    CREATE FUNCTION claim_work_items(
        most int, agent text, lease float8, attempt_ids uuid[],
        of_types text[], of_tenants text[], fairly bool, since timestamptz[], behind uuid[], known_types text[],
        mending bool, ended uuid[]
    ) RETURNS TABLE (
        item_id text, attempt_id text, attempt_number int, type text, content text, tenant_id text,
        work_order_id text, lease_expires_at text, priority text, available_at text
    ) LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
    SET enable_sort = off
    AS $$
    #variable_conflict use_column
    DECLARE
        urgent_first CONSTANT priority[] := ARRAY['URGENT', 'HIGH', 'MEDIUM', 'LOW'];
        ends CONSTANT timestamptz := statement_timestamp() + lease * interval '1 second';
        front CONSTANT timestamptz[] := array_fill('-infinity'::timestamptz, ARRAY[4]);
        -- Compared as text: neither the caller nor the database needs to know all types of the other.
        kinds CONSTANT text[] := COALESCE(of_types, known_types);
        places tid[];
        look int := most;
        looked int;
        outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
        counts text;
        told text;
        broken uuid;
    BEGIN
        IF mending THEN
            LOOP
                BEGIN
                    RETURN QUERY SELECT * FROM claim_work_items(
                        most, agent, lease, attempt_ids, of_types, of_tenants, fairly, since, behind, known_types,
                        false, ended
                    );
                    RETURN;
                EXCEPTION WHEN unique_violation THEN
                    GET STACKED DIAGNOSTICS told = PG_EXCEPTION_DETAIL;  -- Key (work_item_id...)=(...) already exists.
                    IF broken = substring(told FROM '[0-9a-f]{8}-[0-9a-f-]{27}')::uuid THEN
                        RAISE;
                    END IF;
                    broken := substring(told FROM '[0-9a-f]{8}-[0-9a-f-]{27}');
                    -- Rows were written by hand: a queued item has an attempt that has not ended, or its count was
                    -- reduced. It keeps as many tries as it had left, as far as they can be counted; an item without
                    -- any is left out.
                    UPDATE attempts AS a
                    SET status = 'FAILED', error = 'its item was in the queue', finished_at = statement_timestamp(),
                        updated_at = statement_timestamp()
                    WHERE a.work_item_id = broken AND a.finished_at IS NULL;
                    UPDATE work_items AS w
                    SET attempt_count = made.tries,
                        max_attempts = least(w.max_attempts::bigint - w.attempt_count + made.tries, 2147483647)
                    FROM (SELECT max(attempt_number) AS tries FROM attempts WHERE work_item_id = broken) AS made
                    WHERE w.id = broken AND w.attempt_count < made.tries;
                END;
            END LOOP;
        END IF;
        -- The rows are updated where they were locked: their places do not change in between.
        -- In each priority, begin after the time and id up to which the caller knows that nothing is left; if that
        -- finds too few items, begin at the front.
        LOOP
            IF fairly THEN
                -- Every tenant gets its share before any gets more; unused shares go to others. The order of the
                -- tenants is random each time, so that claims of one item are shared, too.
                -- Index: work_items_claim_tenant_idx; the recursion skips in it from one tenant to the next.
                places := ARRAY(
                    WITH RECURSIVE found (name) AS (
                        (
                            SELECT w.tenant_id FROM work_items AS w
                            WHERE w.status = 'QUEUED' AND of_tenants IS NULL
                            ORDER BY w.tenant_id LIMIT 1
                        )
                        UNION ALL
                        SELECT (
                            SELECT w.tenant_id FROM work_items AS w
                            WHERE w.status = 'QUEUED' AND w.tenant_id > found.name
                            ORDER BY w.tenant_id LIMIT 1
                        )
                        FROM found WHERE found.name IS NOT NULL
                    ),
                    drawn AS MATERIALIZED (
                        SELECT name FROM (SELECT name FROM found UNION SELECT unnest(of_tenants)) AS t (name)
                        WHERE name IS NOT NULL
                        ORDER BY random()
                    ),
                    sharing AS MATERIALIZED (
                        SELECT name, most / count(*) OVER ()
                            + CASE WHEN row_number() OVER () <= mod(most, count(*) OVER ()) THEN 1 ELSE 0 END AS share
                        FROM (
                            SELECT t.name FROM drawn AS t CROSS JOIN LATERAL (
                                SELECT FROM unnest(urgent_first) AS lane (priority) CROSS JOIN LATERAL (
                                    SELECT FROM work_items AS w
                                    WHERE w.tenant_id = t.name AND w.type::text = ANY (kinds)
                                        AND w.status = 'QUEUED' AND w.priority = lane.priority
                                        AND w.available_at <= statement_timestamp() AND w.attempt_count < w.max_attempts
                                    ORDER BY w.available_at NULLS FIRST, w.id
                                    LIMIT 1
                                ) AS r
                                LIMIT 1
                            ) AS any_ready
                            LIMIT most
                        ) AS t
                    ),
                    shared AS MATERIALIZED (
                        SELECT r.id, r.place FROM sharing AS t CROSS JOIN LATERAL (
                            SELECT r.id, r.place FROM unnest(urgent_first) AS lane (priority) CROSS JOIN LATERAL (
                                SELECT w.id, w.ctid AS place FROM work_items AS w
                                WHERE w.tenant_id = t.name AND w.type::text = ANY (kinds)
                                    AND w.status = 'QUEUED' AND w.priority = lane.priority
                                    AND w.available_at <= statement_timestamp() AND w.attempt_count < w.max_attempts
                                ORDER BY w.available_at NULLS FIRST, w.id
                                LIMIT t.share
                                FOR NO KEY UPDATE SKIP LOCKED
                            ) AS r
                            LIMIT t.share
                        ) AS r
                    ),
                    others AS MATERIALIZED (
                        SELECT r.place FROM drawn AS t CROSS JOIN unnest(urgent_first) AS lane (priority)
                        CROSS JOIN LATERAL (
                            SELECT w.ctid AS place FROM work_items AS w
                            WHERE w.tenant_id = t.name AND w.type::text = ANY (kinds)
                                AND w.status = 'QUEUED' AND w.priority = lane.priority
                                AND w.available_at <= statement_timestamp() AND w.attempt_count < w.max_attempts
                                AND w.id <> ALL (SELECT id FROM shared)
                            ORDER BY w.available_at NULLS FIRST, w.id
                            LIMIT most
                            FOR NO KEY UPDATE SKIP LOCKED
                        ) AS r
                        LIMIT most - (SELECT count(*) FROM shared)
                    )
                    (SELECT place FROM shared UNION ALL SELECT place FROM others) LIMIT most
                );
            ELSIF of_tenants IS NOT NULL THEN
                -- Read the first items of each range, then take the due number from each: only taken items are
                -- locked. If others hold the first items of a range, the next ones are taken.
                -- Index: work_items_claim_tenant_idx, which contains the type, so that other types are skipped in it.
                WITH seen AS MATERIALIZED (
                    SELECT t.name, lane.*, r.available_at, r.id
                    FROM unnest(of_tenants) AS t (name)
                    CROSS JOIN unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                    CROSS JOIN LATERAL (
                        SELECT w.available_at, w.id FROM work_items AS w
                        WHERE w.tenant_id = t.name AND w.type::text = ANY (kinds)
                            AND w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp()
                            AND (w.available_at, w.id) > (lane.start, lane.after_id)
                            AND w.attempt_count < w.max_attempts
                        ORDER BY w.available_at NULLS FIRST, w.id
                        LIMIT look
                    ) AS r
                ),
                lane AS MATERIALIZED (
                    SELECT name, priority, start, after_id, count(*) AS due
                    FROM (SELECT * FROM seen ORDER BY priority DESC, available_at, id LIMIT look) AS first
                    GROUP BY name, priority, start, after_id
                    ORDER BY priority DESC
                )
                SELECT ARRAY(
                    SELECT r.place FROM lane CROSS JOIN LATERAL (
                        SELECT w.ctid AS place FROM work_items AS w
                        WHERE w.tenant_id = lane.name AND w.type::text = ANY (kinds)
                            AND w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp()
                            AND (w.available_at, w.id) > (lane.start, lane.after_id)
                            AND w.attempt_count < w.max_attempts
                        ORDER BY w.available_at NULLS FIRST, w.id
                        LIMIT lane.due
                        FOR NO KEY UPDATE SKIP LOCKED
                    ) AS r
                    LIMIT most
                ), (SELECT sum(due) FROM lane)
                INTO places, looked;
            ELSIF of_types IS NOT NULL THEN
                -- The same with the index work_items_claim_type_idx.
                WITH seen AS MATERIALIZED (
                    SELECT t.name, lane.*, r.available_at, r.id
                    FROM unnest(of_types::work_item_type[]) AS t (name)
                    CROSS JOIN unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                    CROSS JOIN LATERAL (
                        SELECT w.available_at, w.id FROM work_items AS w
                        WHERE w.type = t.name AND w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp()
                            AND (w.available_at, w.id) > (lane.start, lane.after_id)
                            AND w.attempt_count < w.max_attempts
                        ORDER BY w.available_at NULLS FIRST, w.id
                        LIMIT look
                    ) AS r
                ),
                lane AS MATERIALIZED (
                    SELECT name, priority, start, after_id, count(*) AS due
                    FROM (SELECT * FROM seen ORDER BY priority DESC, available_at, id LIMIT look) AS first
                    GROUP BY name, priority, start, after_id
                    ORDER BY priority DESC
                )
                SELECT ARRAY(
                    SELECT r.place FROM lane CROSS JOIN LATERAL (
                        SELECT w.ctid AS place FROM work_items AS w
                        WHERE w.type = lane.name AND w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp()
                            AND (w.available_at, w.id) > (lane.start, lane.after_id)
                            AND w.attempt_count < w.max_attempts
                        ORDER BY w.available_at NULLS FIRST, w.id
                        LIMIT lane.due
                        FOR NO KEY UPDATE SKIP LOCKED
                    ) AS r
                    LIMIT most
                ), (SELECT sum(due) FROM lane)
                INTO places, looked;
            ELSE
                -- Index: work_items_claim_idx.
                places := ARRAY(
                    SELECT r.place FROM unnest(urgent_first, since, behind) AS lane (priority, start, after_id)
                    CROSS JOIN LATERAL (
                        SELECT w.ctid AS place FROM work_items AS w
                        WHERE w.status = 'QUEUED' AND w.priority = lane.priority
                            AND w.available_at <= statement_timestamp()
                            AND (w.available_at, w.id) > (lane.start, lane.after_id)
                            AND w.attempt_count < w.max_attempts AND w.type::text = ANY (kinds)
                        ORDER BY w.available_at, w.id
                        LIMIT most
                        FOR NO KEY UPDATE SKIP LOCKED
                    ) AS r
                    LIMIT most
                );
            END IF;
            EXIT WHEN cardinality(places) = most;
            IF since <> front THEN
                since := front;
                behind := array_fill('00000000-0000-0000-0000-000000000000'::uuid, ARRAY[4]);
            ELSIF looked = look THEN
                look := 10 * look;  -- others hold some of these
            ELSE
                EXIT;
            END IF;
        END LOOP;

        IF places = '{}' AND ended = '{}' THEN
            RETURN;
        END IF;
        counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
        RETURN QUERY
        WITH claimed AS (
            UPDATE work_items AS w
            SET status = 'PROCESSING', attempt_count = w.attempt_count + 1, updated_at = statement_timestamp(),
                current_attempt_id = attempt_ids[array_position(places, w.ctid)]
            WHERE w.ctid = ANY (places)
            RETURNING w.id, w.current_attempt_id, w.attempt_count, w.type, w.content, w.tenant_id, w.work_order_id,
                w.priority, w.available_at
        ),
        started AS (
            INSERT INTO attempts (id, tenant_id, work_item_id, agent_id, attempt_number, started_at, lease_expires_at)
            SELECT current_attempt_id, tenant_id, id, agent, attempt_count, statement_timestamp(), ends FROM claimed
        ),
        -- The first item of an order moves it on. The orders of items that were finished before (see finish.sql) are
        -- counted here, too: all are locked at once, in the order of their ids. IS NOT DISTINCT FROM leaves the planner
        -- only the index of the primary key.
        counted AS (
            UPDATE work_orders AS o
            SET open_items = o.open_items - cardinality(array_positions(ended, o.id)),
                updated_at = statement_timestamp(),
                status = CASE
                    WHEN o.id <> ALL (ended) OR o.open_items > cardinality(array_positions(ended, o.id))
                        THEN 'PROCESSING'
                    WHEN o.failed_items > 0 THEN 'FAILED'
                    ELSE 'COMPLETED'
                END::work_order_status
            WHERE o.id = ANY (ARRAY(
                SELECT p.id FROM work_orders AS p
                WHERE p.id = ANY (ARRAY(SELECT DISTINCT work_order_id FROM claimed) || ended)
                    AND (p.status IS NOT DISTINCT FROM 'PENDING' OR p.id = ANY (ended))
                ORDER BY p.id FOR NO KEY UPDATE
            ))
        )
        -- Python has no times before the year 1.
        SELECT c.id::text, c.current_attempt_id::text, c.attempt_count, c.type::text, c.content, c.tenant_id::text,
            c.work_order_id::text, ends::text, c.priority::text, greatest(c.available_at, '0002-01-01 00:00+00')::text
        FROM claimed AS c
        ORDER BY c.priority DESC, c.available_at, c.id;
        counts := set_config('myloware.counts', outside, true);
    END
    $$
    """,
    """
    CREATE FUNCTION finish_work_items(
        item_ids uuid[], attempt_ids uuid[], outputs jsonb, gated bool, of_tenant text, wholly bool, claiming bool,
        OUT refused uuid[], OUT ended uuid[]
    ) LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
    AS $$
    DECLARE
        done CONSTANT work_item_status := CASE WHEN gated THEN 'PROCESSING' ELSE 'COMPLETED' END;
        held uuid[];
        outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
        counts text;
    BEGIN
        IF wholly THEN
            BEGIN
                SELECT f.refused INTO refused
                FROM finish_work_items(item_ids, attempt_ids, outputs, gated, of_tenant, false, false) AS f;
                IF refused <> '{}' THEN
                    RAISE EXCEPTION USING ERRCODE = 'MW001';
                END IF;
            EXCEPTION WHEN SQLSTATE 'MW001' THEN  -- undoes what it wrote
            END;
            RETURN;
        END IF;

        counts := set_config('myloware.counts', pg_trigger_depth()::text, true);  -- see triggers.sql
        WITH finished AS (
            UPDATE work_items AS w
            SET status = done, awaiting_approval = gated, result = outputs -> width_bucket(w.id, item_ids) - 1,
                processed_at = CASE WHEN NOT gated THEN statement_timestamp() END, updated_at = statement_timestamp()
            WHERE w.id = ANY (item_ids) AND w.status IS NOT DISTINCT FROM 'PROCESSING' AND NOT w.awaiting_approval
                AND w.current_attempt_id = attempt_ids[width_bucket(w.id, item_ids)]
                AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
                AND EXISTS (
                    SELECT FROM attempts AS a
                    WHERE a.id = w.current_attempt_id AND a.finished_at IS NULL
                        AND a.lease_expires_at > statement_timestamp()
                    OFFSET 0
                )
            RETURNING w.id, w.current_attempt_id, w.work_order_id
        ),
        ended AS (
            UPDATE attempts AS a
            SET status = 'COMPLETED', output = outputs -> width_bucket(a.work_item_id, item_ids) - 1,
                finished_at = statement_timestamp(), updated_at = statement_timestamp(),
                duration_ms = least(
                    greatest(
                        0, (extract(epoch FROM statement_timestamp()) - extract(epoch FROM a.started_at)) * 1000
                    ),
                    2147483647
                )
            WHERE a.id = ANY (ARRAY(SELECT current_attempt_id FROM finished))
        )
        SELECT array_agg(id), array_agg(work_order_id) INTO held, ended FROM finished;
        ended := CASE WHEN gated THEN '{}' ELSE COALESCE(ended, '{}') END;

        IF NOT claiming AND ended <> '{}' THEN
            UPDATE work_orders AS o
            SET open_items = o.open_items - cardinality(array_positions(ended, o.id)),
                updated_at = statement_timestamp(),
                status = CASE
                    WHEN o.open_items > cardinality(array_positions(ended, o.id)) THEN 'PROCESSING'
                    WHEN o.failed_items > 0 THEN 'FAILED'
                    ELSE 'COMPLETED'
                END::work_order_status
            WHERE o.id = ANY (ended);
        END IF;
        counts := set_config('myloware.counts', outside, true);
        IF cardinality(held) = cardinality(item_ids) THEN
            refused := '{}';
            RETURN;
        END IF;
        refused := ARRAY(
            SELECT given.item_id FROM unnest(item_ids, attempt_ids) AS given (item_id, attempt_id)
            WHERE NOT EXISTS (
                SELECT FROM work_items AS w JOIN attempts AS a ON a.id = w.current_attempt_id
                WHERE w.id = given.item_id AND a.id = given.attempt_id AND a.status = 'COMPLETED'
                    AND (of_tenant IS NULL OR w.tenant_id = of_tenant)
                    AND gated = (
                        w.awaiting_approval
                        OR EXISTS (
                            SELECT FROM approval_events WHERE work_item_id = w.id AND decision <> 'ESCALATED' OFFSET 0
                        )
                    )
                OFFSET 0
            )
        );
    END
    $$
    """,
    """
    CREATE FUNCTION index_work_items(most int, of_tenant text) RETURNS int LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
    AS $$
    DECLARE
        indexed int;
        outside CONSTANT text := COALESCE(current_setting('myloware.counts', true), '');
        counts text;
    BEGIN
        -- No counter of an order changes: see triggers.sql.
        counts := set_config('myloware.counts', pg_trigger_depth()::text, true);
        -- Index: work_items_unindexed_idx. After a megabyte of contents the batch is full, so that none takes long.
        WITH ended AS MATERIALIZED (
            SELECT id, processed_at, octet_length(content) AS size FROM work_items
            WHERE NOT searchable AND processed_at IS NOT NULL AND (of_tenant IS NULL OR tenant_id = of_tenant)
            ORDER BY processed_at
            LIMIT most
            FOR NO KEY UPDATE SKIP LOCKED
        ),
        measured AS (
            SELECT id, sum(size) OVER (ORDER BY processed_at, id) - size AS size_before FROM ended
        )
        -- Looked up in an array: the plan is made once, maybe for an empty table, and can only use the primary key.
        UPDATE work_items SET searchable = true
        WHERE id = ANY (ARRAY(SELECT id FROM measured WHERE size_before < 1000000));
        GET DIAGNOSTICS indexed = ROW_COUNT;
        counts := set_config('myloware.counts', outside, true);
        RETURN indexed;
    END
    $$
    """,
    # The guards and a column of an index must find what they use with any search_path of a session.
    """
    DO $$
    DECLARE
        name text;
    BEGIN
        FOREACH name IN ARRAY ARRAY[
            'content_search(text)',
            'refuse_transition()',
            'work_items_guard()',
            'work_orders_guard()',
            'refuse_change()',
            'work_orders_start_count()',
            'work_items_inherit_priority()',
            'work_orders_cancel_items()',
            'work_items_cancel_item()',
            'mem_docs_guard()',
            'work_items_roll_up()'
        ] LOOP
            EXECUTE 'ALTER FUNCTION ' || name || ' SET search_path = '
                || quote_ident(current_schema()) || ', pg_temp';
        END LOOP;
    END
    $$
    """,
)

TABLES = (
    """
    CREATE TABLE work_orders (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        status work_order_status NOT NULL DEFAULT 'PENDING',
        priority priority NOT NULL DEFAULT 'MEDIUM',
        workflow_id name_text,
        created_by name_text NOT NULL,
        metadata object_jsonb NOT NULL DEFAULT '{}',
        idempotency_key name_text,
        unique_key name_text,
        open_items integer NOT NULL DEFAULT 0,
        failed_items integer NOT NULL DEFAULT 0,
        cancelled_at timestamptz,
        retry_policy retry_policy,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT work_orders_tenant_id_idempotency_key_key UNIQUE (tenant_id, idempotency_key),
        CONSTRAINT work_orders_check CHECK (
            open_items >= 0 AND failed_items >= 0 AND (open_items = 0 OR status IN ('PENDING', 'PROCESSING'))
        )
    )
    """,
    "CREATE INDEX work_orders_tenant_status_created_at_idx ON work_orders (tenant_id, status, created_at)",
    # The newest of indexes that cost the same is used: without statistics, the check of each item's foreign key would
    # otherwise read the orders of its tenant. Plans of such checks are kept for a session.
    "ALTER TABLE work_orders ADD CONSTRAINT work_orders_tenant_id_id_key UNIQUE (tenant_id, id)",
    """
    CREATE TABLE work_items (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        work_order_id uuid NOT NULL,
        type work_item_type NOT NULL,
        content text NOT NULL,
        status work_item_status NOT NULL DEFAULT 'QUEUED',
        result jsonb,
        processed_at timestamptz,
        cancelled_at timestamptz,
        priority priority NOT NULL,
        available_at timestamptz NOT NULL DEFAULT now(),
        attempt_count integer NOT NULL DEFAULT 0,
        max_attempts integer NOT NULL DEFAULT 5,
        current_attempt_id uuid,
        awaiting_approval boolean NOT NULL DEFAULT false,
        searchable boolean NOT NULL DEFAULT false,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT work_items_work_order_id_fkey FOREIGN KEY (tenant_id, work_order_id)
            REFERENCES work_orders (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT work_items_tenant_id_id_key UNIQUE (tenant_id, id),
        CONSTRAINT work_items_check CHECK (
            content <> '' AND attempt_count BETWEEN 0 AND max_attempts AND max_attempts >= 1
            AND (status IN ('COMPLETED', 'FAILED')) = (processed_at IS NOT NULL)
            AND (NOT awaiting_approval OR status = 'PROCESSING')
        )
    )
    """,
    """
    CREATE TABLE attempts (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        work_item_id uuid NOT NULL,
        agent_id name_text NOT NULL,
        status attempt_status NOT NULL DEFAULT 'STARTED',
        input jsonb,
        output jsonb,
        error text,
        duration_ms integer,
        attempt_number integer NOT NULL DEFAULT 1,
        lease_expires_at timestamptz,
        progress integer,
        progress_message text,
        started_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT attempts_work_item_id_fkey FOREIGN KEY (tenant_id, work_item_id)
            REFERENCES work_items (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT attempts_work_item_id_attempt_number_key UNIQUE (work_item_id, attempt_number),
        CONSTRAINT attempts_check CHECK (
            attempt_number >= 1 AND duration_ms >= 0 AND (status = 'STARTED') = (finished_at IS NULL)
        )
    )
    """,
    """
    CREATE TABLE mem_docs (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        work_item_id uuid,
        type mem_doc_type NOT NULL,
        content text NOT NULL,
        embedding vector(1536),
        embedding_model name_text,
        metadata object_jsonb NOT NULL DEFAULT '{}',
        expires_at timestamptz,
        document_id uuid,
        chunk_no integer,
        content_hash bytea GENERATED ALWAYS AS (content_sha256(content)) STORED,
        search tsvector GENERATED ALWAYS AS (content_search(content)) STORED,
        updated_at timestamptz NOT NULL DEFAULT statement_timestamp(),
        CONSTRAINT mem_docs_work_item_id_fkey FOREIGN KEY (tenant_id, work_item_id)
            REFERENCES work_items (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT mem_docs_document_id_fkey FOREIGN KEY (document_id)
            REFERENCES mem_docs (id) ON DELETE CASCADE,
        CONSTRAINT mem_docs_check CHECK (
            content <> '' AND (document_id IS NOT NULL) = (COALESCE(chunk_no, 0) > 0)
        )
    ) WITH (toast_tuple_target = 8160)
    """,
    # Vectors are stored in their rows, with the other columns in the same page as far as they fit: an exact search
    # that fetches each vector from elsewhere takes three times as long.
    "ALTER TABLE mem_docs ALTER COLUMN embedding SET STORAGE PLAIN",
    """
    CREATE TABLE approval_events (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        work_item_id uuid NOT NULL,
        approver_id name_text NOT NULL,
        decision approval_decision NOT NULL,
        reason text,
        policy_version name_text NOT NULL,
        CONSTRAINT approval_events_work_item_id_fkey FOREIGN KEY (tenant_id, work_item_id)
            REFERENCES work_items (tenant_id, id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE dead_letters (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        work_item_id uuid,
        source name_text NOT NULL,
        event_type name_text NOT NULL,
        payload jsonb NOT NULL,
        error text NOT NULL,
        retry_count integer NOT NULL DEFAULT 0,
        replayed_at timestamptz,
        replayed_by name_text,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT dead_letters_work_item_id_fkey FOREIGN KEY (tenant_id, work_item_id)
            REFERENCES work_items (tenant_id, id) ON DELETE SET NULL (work_item_id),
        CONSTRAINT dead_letters_retry_count_check CHECK (retry_count >= 0),
        CONSTRAINT dead_letters_replayed_at_check CHECK ((replayed_at IS NULL) = (replayed_by IS NULL))
    )
    """,
    """
    CREATE TABLE connectors (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        name name_text NOT NULL,
        type connector_type NOT NULL,
        config object_jsonb NOT NULL DEFAULT '{}',
        status connector_status NOT NULL DEFAULT 'INACTIVE',
        last_health_check timestamptz,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT connectors_tenant_id_id_key UNIQUE (tenant_id, id),
        CONSTRAINT connectors_tenant_id_name_key UNIQUE (tenant_id, name)
    )
    """,
    """
    CREATE TABLE tools (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        name name_text NOT NULL,
        description text,
        connector_id uuid NOT NULL,
        schema object_jsonb NOT NULL DEFAULT '{}',
        is_active boolean NOT NULL DEFAULT true,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT tools_connector_id_fkey FOREIGN KEY (tenant_id, connector_id)
            REFERENCES connectors (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT tools_tenant_id_id_key UNIQUE (tenant_id, id),
        CONSTRAINT tools_tenant_id_name_key UNIQUE (tenant_id, name)
    )
    """,
    """
    CREATE TABLE capabilities (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        name name_text NOT NULL,
        description text,
        scope name_text NOT NULL,
        permissions jsonb NOT NULL DEFAULT '[]',
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT capabilities_name_key UNIQUE (name),
        CONSTRAINT capabilities_permissions_check CHECK (jsonb_typeof(permissions) = 'array')
    )
    """,
    """
    CREATE TABLE tool_capabilities (
        tool_id uuid NOT NULL,
        capability_id uuid NOT NULL,
        tenant_id name_text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tool_id, capability_id),
        CONSTRAINT tool_capabilities_tool_id_fkey FOREIGN KEY (tenant_id, tool_id)
            REFERENCES tools (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT tool_capabilities_capability_id_fkey FOREIGN KEY (capability_id)
            REFERENCES capabilities (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE schemas (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        name name_text NOT NULL,
        version name_text NOT NULL,
        document_type name_text NOT NULL,
        schema_definition object_jsonb NOT NULL,
        is_active boolean NOT NULL DEFAULT false,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT schemas_name_version_key UNIQUE (name, version)
    )
    """,
    """
    CREATE TABLE workflow_templates (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        name name_text NOT NULL,
        description text,
        document_type name_text NOT NULL,
        workflow_definition object_jsonb NOT NULL,
        is_active boolean NOT NULL DEFAULT false,
        updated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE runs (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        work_order_id uuid NOT NULL,
        workflow_template_id uuid,
        status work_order_status NOT NULL DEFAULT 'PENDING',
        context object_jsonb NOT NULL DEFAULT '{}',
        error text,
        started_at timestamptz,
        finished_at timestamptz,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT runs_work_order_id_fkey FOREIGN KEY (tenant_id, work_order_id)
            REFERENCES work_orders (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT runs_workflow_template_id_fkey FOREIGN KEY (workflow_template_id)
            REFERENCES workflow_templates (id) ON DELETE SET NULL,
        CONSTRAINT runs_finished_at_check CHECK ((status IN ('COMPLETED', 'FAILED')) = (finished_at IS NOT NULL))
    )
    """,
    """
    CREATE TABLE eval_results (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        work_item_id uuid NOT NULL,
        evaluation_type name_text NOT NULL,
        score double precision NOT NULL,
        metrics object_jsonb NOT NULL DEFAULT '{}',
        passed boolean NOT NULL,
        CONSTRAINT eval_results_work_item_id_fkey FOREIGN KEY (tenant_id, work_item_id)
            REFERENCES work_items (tenant_id, id) ON DELETE CASCADE,
        CONSTRAINT eval_results_score_check CHECK (score BETWEEN 0 AND 1)
    )
    """,
    """
    CREATE TABLE audit_logs (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now(),
        tenant_id name_text NOT NULL,
        user_id name_text NOT NULL,
        action name_text NOT NULL,
        resource_type name_text NOT NULL,
        resource_id name_text NOT NULL,
        details object_jsonb NOT NULL DEFAULT '{}',
        ip_address inet
    )
    """,
)

COMPRESSION = (
    # Half the processor time of pglz; a server may have been built without it.
    """
    DO $$
    BEGIN
        ALTER TABLE work_items ALTER COLUMN content SET COMPRESSION lz4;
        ALTER TABLE mem_docs ALTER COLUMN content SET COMPRESSION lz4;
    EXCEPTION WHEN feature_not_supported THEN
        RAISE NOTICE USING MESSAGE = 'contents are compressed with pglz: ' || SQLERRM;
    END
    $$
    """,
)

INDEXES = (
    """
    CREATE UNIQUE INDEX work_orders_unique_key_idx ON work_orders (tenant_id, unique_key)
    WHERE unique_key IS NOT NULL AND status IN ('PENDING', 'PROCESSING')
    """,
    "CREATE INDEX work_items_work_order_status_type_idx ON work_items (work_order_id, status, type)",
    "CREATE INDEX work_items_claim_idx ON work_items (priority DESC, available_at, id) WHERE status = 'QUEUED'",
    """
    CREATE INDEX work_items_claim_type_idx
    ON work_items (type, priority DESC, available_at NULLS FIRST, id)
    WHERE status = 'QUEUED'
    """,
    """
    CREATE INDEX work_items_claim_tenant_idx
    ON work_items (tenant_id, priority DESC, available_at NULLS FIRST, id, type)
    WHERE status = 'QUEUED'
    """,
    "CREATE INDEX work_items_approval_idx ON work_items (updated_at, id) WHERE awaiting_approval",
    """
    CREATE INDEX work_items_content_fts_idx ON work_items USING gin (content_search(content))
    WHERE searchable AND processed_at IS NOT NULL
    """,
    # Otherwise each ANALYZE parses the contents of its sample, thousands of items.
    "ALTER INDEX work_items_content_fts_idx ALTER COLUMN 1 SET STATISTICS 0",
    """
    CREATE INDEX work_items_unindexed_idx ON work_items (processed_at)
    WHERE NOT searchable AND processed_at IS NOT NULL
    """,
    "CREATE UNIQUE INDEX attempts_started_idx ON attempts (work_item_id) WHERE status = 'STARTED'",
    (
        "CREATE INDEX attempts_finished_at_idx ON attempts USING brin (finished_at)"
        " WITH (pages_per_range = 32, autosummarize = on)"
    ),
    "CREATE INDEX mem_docs_tenant_id_work_item_id_type_idx ON mem_docs (tenant_id, work_item_id, type)",
    "CREATE INDEX mem_docs_tenant_id_type_created_at_idx ON mem_docs (tenant_id, type, created_at)",
    "CREATE INDEX mem_docs_tenant_id_content_hash_idx ON mem_docs (tenant_id, content_hash)",
    "CREATE INDEX mem_docs_created_at_idx ON mem_docs (created_at, id, tenant_id)",
    "CREATE INDEX mem_docs_updated_at_idx ON mem_docs (updated_at, id, tenant_id)",
    "CREATE INDEX mem_docs_expires_at_idx ON mem_docs (expires_at) WHERE expires_at IS NOT NULL",
    (
        "CREATE INDEX mem_docs_missing_embedding_idx ON mem_docs (created_at, id)"
        " WHERE embedding IS NULL AND chunk_no IS DISTINCT FROM 0"
    ),
    (
        "CREATE INDEX mem_docs_embedding_model_idx ON mem_docs (embedding_model, created_at, id)"
        " WHERE embedding IS NOT NULL"
    ),
    "CREATE INDEX mem_docs_embedding_idx ON mem_docs USING ivfflat (embedding vector_cosine_ops)",
    "CREATE INDEX mem_docs_document_id_idx ON mem_docs (document_id, chunk_no) WHERE document_id IS NOT NULL",
    "CREATE INDEX mem_docs_search_idx ON mem_docs USING gin (search)",
    "CREATE INDEX mem_docs_metadata_idx ON mem_docs USING gin (metadata jsonb_path_ops)",
    "CREATE INDEX approval_events_work_item_id_idx ON approval_events (work_item_id)",
    "CREATE INDEX dead_letters_work_item_id_idx ON dead_letters (work_item_id)",
    "CREATE UNIQUE INDEX dead_letters_open_idx ON dead_letters (work_item_id) WHERE replayed_at IS NULL",
    "CREATE INDEX dead_letters_tenant_id_created_at_idx ON dead_letters (tenant_id, created_at)",
    "CREATE INDEX tools_connector_id_idx ON tools (connector_id)",
    "CREATE INDEX tool_capabilities_capability_id_idx ON tool_capabilities (capability_id)",
    "CREATE UNIQUE INDEX schemas_active_idx ON schemas (name) WHERE is_active",
    "CREATE UNIQUE INDEX workflow_templates_active_idx ON workflow_templates (name) WHERE is_active",
    "CREATE INDEX runs_work_order_id_idx ON runs (work_order_id)",
    "CREATE INDEX runs_workflow_template_id_idx ON runs (workflow_template_id)",
    "CREATE INDEX eval_results_work_item_id_idx ON eval_results (work_item_id)",
    "CREATE INDEX audit_logs_tenant_id_created_at_idx ON audit_logs (tenant_id, created_at)",
    "CREATE INDEX audit_logs_resource_idx ON audit_logs (tenant_id, resource_type, resource_id, created_at)",
    "CREATE INDEX audit_logs_action_idx ON audit_logs (tenant_id, action, created_at)",
    "CREATE INDEX audit_logs_user_id_idx ON audit_logs (tenant_id, user_id, created_at)",
)

TRIGGERS = (
    """
    CREATE TRIGGER work_items_priority BEFORE INSERT ON work_items
    FOR EACH ROW WHEN (NEW.priority IS NULL) EXECUTE FUNCTION work_items_inherit_priority()
    """,
    """
    CREATE TRIGGER work_items_guard AFTER UPDATE OF status, awaiting_approval ON work_items
    FOR EACH ROW WHEN (
        (OLD.awaiting_approval AND NOT NEW.awaiting_approval)
        OR (OLD.status <> NEW.status AND (
            OLD.status IN ('COMPLETED', 'FAILED') OR NEW.status = 'FAILED'
            OR (OLD.status = 'QUEUED' AND NEW.status = 'COMPLETED')
            OR (NEW.status = 'QUEUED' AND NEW.attempt_count >= NEW.max_attempts)
        ))
    ) EXECUTE FUNCTION work_items_guard()
    """,
    """
    CREATE TRIGGER attempts_transition AFTER UPDATE OF status ON attempts
    FOR EACH ROW WHEN (OLD.status <> 'STARTED' AND NEW.status <> OLD.status) EXECUTE FUNCTION refuse_transition()
    """,
    """
    CREATE TRIGGER work_orders_guard AFTER UPDATE OF status, open_items, failed_items ON work_orders
    FOR EACH ROW WHEN (pg_trigger_depth() = 0 AND current_setting('myloware.counts', true) IS DISTINCT FROM '0')
    EXECUTE FUNCTION work_orders_guard()
    """,
    """
    CREATE TRIGGER work_orders_start_count BEFORE INSERT ON work_orders
    FOR EACH ROW WHEN (
        (NEW.open_items <> 0 OR NEW.failed_items <> 0)
        AND current_setting('myloware.counts', true) IS DISTINCT FROM pg_trigger_depth()::text
    ) EXECUTE FUNCTION work_orders_start_count()
    """,
    """
    CREATE TRIGGER work_orders_cancel AFTER UPDATE OF cancelled_at ON work_orders
    FOR EACH ROW WHEN (OLD.cancelled_at IS NULL AND NEW.cancelled_at IS NOT NULL)
    EXECUTE FUNCTION work_orders_cancel_items()
    """,
    """
    CREATE TRIGGER work_items_cancel_item AFTER UPDATE OF cancelled_at ON work_items
    FOR EACH ROW WHEN (
        NEW.status IN ('QUEUED', 'PROCESSING') AND NEW.cancelled_at IS NOT NULL
        AND NEW.cancelled_at IS DISTINCT FROM OLD.cancelled_at
    ) EXECUTE FUNCTION work_items_cancel_item()
    """,
    """
    CREATE TRIGGER runs_transition AFTER UPDATE OF status ON runs
    FOR EACH ROW WHEN (
        (OLD.status IN ('COMPLETED', 'FAILED') AND NEW.status <> OLD.status)
        OR (OLD.status = 'PROCESSING' AND NEW.status = 'PENDING')
    ) EXECUTE FUNCTION refuse_transition()
    """,
    """
    CREATE TRIGGER work_items_roll_up_insert AFTER INSERT ON work_items
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (current_setting('myloware.counts', true) IS DISTINCT FROM pg_trigger_depth()::text)
    EXECUTE FUNCTION work_items_roll_up()
    """,
    """
    CREATE TRIGGER work_items_roll_up_update AFTER UPDATE ON work_items
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (current_setting('myloware.counts', true) IS DISTINCT FROM pg_trigger_depth()::text)
    EXECUTE FUNCTION work_items_roll_up()
    """,
    """
    CREATE TRIGGER work_items_roll_up_delete AFTER DELETE ON work_items
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up()
    """,
    """
    CREATE TRIGGER work_items_roll_up_truncate AFTER TRUNCATE ON work_items
    FOR EACH STATEMENT EXECUTE FUNCTION work_items_roll_up()
    """,
    """
    CREATE TRIGGER approval_events_append_only BEFORE UPDATE OR DELETE ON approval_events
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE ON audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER mem_docs_guard AFTER INSERT OR UPDATE OF tenant_id, document_id ON mem_docs
    FOR EACH ROW WHEN (NEW.document_id IS NOT NULL) EXECUTE FUNCTION mem_docs_guard()
    """,
)

COMMENTS = (
    (
        "COMMENT ON TABLE work_orders IS 'A request to process documents. The database updates `open_items`,"
        " `failed_items` and `status` with the items. An order is PENDING until its first item starts, and"
        " COMPLETED or FAILED when its last item has ended. The replay of an item opens it again.'"
    ),
    "COMMENT ON COLUMN work_orders.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN work_orders.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN work_orders.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN work_orders.status IS 'Follows the items.'",
    "COMMENT ON COLUMN work_orders.priority IS 'How soon its items are claimed.'",
    "COMMENT ON COLUMN work_orders.workflow_id IS 'The workflow that processes it, in the caller''s own naming.'",
    "COMMENT ON COLUMN work_orders.created_by IS 'The user or service that submitted it.'",
    "COMMENT ON COLUMN work_orders.metadata IS 'Data of the caller''s, an object.'",
    "COMMENT ON COLUMN work_orders.idempotency_key IS 'A second submission with the same key returns this order.'",
    "COMMENT ON COLUMN work_orders.unique_key IS 'At most one open order of a tenant has it.'",
    "COMMENT ON COLUMN work_orders.open_items IS 'How many items have not ended.'",
    "COMMENT ON COLUMN work_orders.failed_items IS 'How many items have failed.'",
    "COMMENT ON COLUMN work_orders.cancelled_at IS 'When it was cancelled.'",
    (
        "COMMENT ON COLUMN work_orders.retry_policy IS 'The values of a `RetryPolicy`: base, factor, cap and"
        " jitter of the pauses between attempts.'"
    ),
    "COMMENT ON COLUMN work_orders.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE work_items IS 'A document of an order, and its result.'",
    "COMMENT ON COLUMN work_items.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN work_items.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN work_items.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN work_items.work_order_id IS 'The order that it belongs to.'",
    "COMMENT ON COLUMN work_items.type IS 'The type of document.'",
    "COMMENT ON COLUMN work_items.content IS 'The document.'",
    "COMMENT ON COLUMN work_items.status IS 'Moves from QUEUED to PROCESSING, then to COMPLETED or FAILED, or back.'",
    "COMMENT ON COLUMN work_items.result IS 'What the agent made of it; waits for approval while `awaiting_approval`.'",
    "COMMENT ON COLUMN work_items.processed_at IS 'When it ended.'",
    "COMMENT ON COLUMN work_items.cancelled_at IS 'When it was cancelled.'",
    "COMMENT ON COLUMN work_items.priority IS 'The order''s; a trigger fills it in.'",
    "COMMENT ON COLUMN work_items.available_at IS 'It is not claimed before.'",
    "COMMENT ON COLUMN work_items.attempt_count IS 'How many attempts have been claimed.'",
    "COMMENT ON COLUMN work_items.max_attempts IS 'It fails after this many attempts.'",
    (
        "COMMENT ON COLUMN work_items.current_attempt_id IS 'The last attempt, also after its end. No foreign key:"
        " the attempt already refers to the item.'"
    ),
    "COMMENT ON COLUMN work_items.awaiting_approval IS 'Whether its result waits for a decision.'",
    (
        "COMMENT ON COLUMN work_items.searchable IS 'Whether the full-text index contains it; `index_work_items()`"
        " sets it when it has ended.'"
    ),
    "COMMENT ON COLUMN work_items.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE attempts IS 'An agent''s try at an item. It holds the lease on the item.'",
    "COMMENT ON COLUMN attempts.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN attempts.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN attempts.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN attempts.work_item_id IS 'The item.'",
    "COMMENT ON COLUMN attempts.agent_id IS 'The agent that claimed it.'",
    "COMMENT ON COLUMN attempts.status IS 'Leaves STARTED once.'",
    "COMMENT ON COLUMN attempts.input IS 'What the agent was given, if it recorded it.'",
    "COMMENT ON COLUMN attempts.output IS 'What it returned.'",
    "COMMENT ON COLUMN attempts.error IS 'Why it failed.'",
    "COMMENT ON COLUMN attempts.duration_ms IS 'Milliseconds from start to end.'",
    "COMMENT ON COLUMN attempts.attempt_number IS 'Counts from 1 for each item.'",
    "COMMENT ON COLUMN attempts.lease_expires_at IS 'After that the item may be claimed by others.'",
    "COMMENT ON COLUMN attempts.progress IS 'In percent.'",
    "COMMENT ON COLUMN attempts.progress_message IS 'What the agent is doing.'",
    "COMMENT ON COLUMN attempts.started_at IS 'When it was claimed.'",
    "COMMENT ON COLUMN attempts.finished_at IS 'When it ended.'",
    "COMMENT ON COLUMN attempts.updated_at IS 'When the row last changed.'",
    (
        "COMMENT ON TABLE mem_docs IS 'A document of an agent''s memory. If it was made for an item, it is deleted"
        " with it.'"
    ),
    "COMMENT ON COLUMN mem_docs.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN mem_docs.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN mem_docs.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN mem_docs.work_item_id IS 'The item that it was made for.'",
    "COMMENT ON COLUMN mem_docs.type IS 'Context of a task, general knowledge, or a template.'",
    "COMMENT ON COLUMN mem_docs.content IS 'The text.'",
    "COMMENT ON COLUMN mem_docs.embedding IS 'Its vector; one of another length is padded with zeros.'",
    "COMMENT ON COLUMN mem_docs.embedding_model IS 'The model that made the vector.'",
    "COMMENT ON COLUMN mem_docs.metadata IS 'Data of the caller''s, an object.'",
    "COMMENT ON COLUMN mem_docs.expires_at IS 'Searches do not find it afterwards, and workers delete it.'",
    "COMMENT ON COLUMN mem_docs.document_id IS 'The long document that this is a chunk of.'",
    "COMMENT ON COLUMN mem_docs.chunk_no IS '0 for a long document, from 1 for its chunks.'",
    "COMMENT ON COLUMN mem_docs.content_hash IS 'SHA-256 of the text.'",
    "COMMENT ON COLUMN mem_docs.search IS 'The words of the text, for searches.'",
    "COMMENT ON COLUMN mem_docs.updated_at IS 'When the row was last written, by the time of the statement.'",
    "COMMENT ON TABLE approval_events IS 'A person''s decision about an item. Append-only.'",
    "COMMENT ON COLUMN approval_events.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN approval_events.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN approval_events.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN approval_events.work_item_id IS 'The item that was decided on.'",
    "COMMENT ON COLUMN approval_events.approver_id IS 'Who decided.'",
    "COMMENT ON COLUMN approval_events.decision IS 'Approved, rejected, or passed on to someone else.'",
    "COMMENT ON COLUMN approval_events.reason IS 'Why.'",
    "COMMENT ON COLUMN approval_events.policy_version IS 'The version of the policy that the decision follows.'",
    "COMMENT ON TABLE dead_letters IS 'An event that failed for good. It can be replayed.'",
    "COMMENT ON COLUMN dead_letters.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN dead_letters.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN dead_letters.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN dead_letters.work_item_id IS 'The item that failed, if it was one; the letter outlives it.'",
    "COMMENT ON COLUMN dead_letters.source IS 'Where the event came from.'",
    "COMMENT ON COLUMN dead_letters.event_type IS 'What kind of event it was.'",
    "COMMENT ON COLUMN dead_letters.payload IS 'The event.'",
    "COMMENT ON COLUMN dead_letters.error IS 'Why it failed.'",
    "COMMENT ON COLUMN dead_letters.retry_count IS 'How often it was tried.'",
    "COMMENT ON COLUMN dead_letters.replayed_at IS 'When it was replayed.'",
    "COMMENT ON COLUMN dead_letters.replayed_by IS 'Who replayed it.'",
    "COMMENT ON COLUMN dead_letters.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE connectors IS 'An outside system that a tenant''s agents use.'",
    "COMMENT ON COLUMN connectors.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN connectors.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN connectors.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN connectors.name IS 'Its name, unique for the tenant.'",
    "COMMENT ON COLUMN connectors.type IS 'The kind of system.'",
    "COMMENT ON COLUMN connectors.config IS 'How to reach it, an object.'",
    "COMMENT ON COLUMN connectors.status IS 'Whether it is in use.'",
    "COMMENT ON COLUMN connectors.last_health_check IS 'When it was last checked.'",
    "COMMENT ON COLUMN connectors.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE tools IS 'A tool that an agent calls through a connector.'",
    "COMMENT ON COLUMN tools.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN tools.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN tools.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN tools.name IS 'Its name, unique for the tenant.'",
    "COMMENT ON COLUMN tools.description IS 'What it does.'",
    "COMMENT ON COLUMN tools.connector_id IS 'The connector that it is called through.'",
    "COMMENT ON COLUMN tools.schema IS 'The JSON Schema of its arguments.'",
    "COMMENT ON COLUMN tools.is_active IS 'Whether agents may call it.'",
    "COMMENT ON COLUMN tools.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE capabilities IS 'A permission that can be granted to tools. All tenants share the list.'",
    "COMMENT ON COLUMN capabilities.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN capabilities.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN capabilities.name IS 'Its name.'",
    "COMMENT ON COLUMN capabilities.description IS 'What it permits.'",
    "COMMENT ON COLUMN capabilities.scope IS 'Where it holds.'",
    "COMMENT ON COLUMN capabilities.permissions IS 'An array of the permissions.'",
    "COMMENT ON COLUMN capabilities.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE tool_capabilities IS 'The grant of a capability to a tool.'",
    "COMMENT ON COLUMN tool_capabilities.tool_id IS 'The tool.'",
    "COMMENT ON COLUMN tool_capabilities.capability_id IS 'The capability.'",
    "COMMENT ON COLUMN tool_capabilities.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN tool_capabilities.created_at IS 'When the row was made.'",
    (
        "COMMENT ON TABLE schemas IS 'A version of the JSON Schema for a type of document. At most one version of"
        " a name is active.'"
    ),
    "COMMENT ON COLUMN schemas.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN schemas.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN schemas.name IS 'Its name.'",
    "COMMENT ON COLUMN schemas.version IS 'Its version.'",
    "COMMENT ON COLUMN schemas.document_type IS 'The type of document that it describes.'",
    "COMMENT ON COLUMN schemas.schema_definition IS 'The JSON Schema.'",
    "COMMENT ON COLUMN schemas.is_active IS 'Whether documents are checked against it.'",
    "COMMENT ON COLUMN schemas.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE workflow_templates IS 'A reusable workflow. At most one template of a name is active.'",
    "COMMENT ON COLUMN workflow_templates.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN workflow_templates.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN workflow_templates.name IS 'Its name.'",
    "COMMENT ON COLUMN workflow_templates.description IS 'What it is for.'",
    "COMMENT ON COLUMN workflow_templates.document_type IS 'The type of document that it processes.'",
    "COMMENT ON COLUMN workflow_templates.workflow_definition IS 'The steps, an object.'",
    "COMMENT ON COLUMN workflow_templates.is_active IS 'Whether new runs use it.'",
    "COMMENT ON COLUMN workflow_templates.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE runs IS 'An execution of a workflow on an order.'",
    "COMMENT ON COLUMN runs.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN runs.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN runs.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN runs.work_order_id IS 'The order.'",
    "COMMENT ON COLUMN runs.workflow_template_id IS 'The template that it follows, if any.'",
    "COMMENT ON COLUMN runs.status IS 'Moves on once, to COMPLETED or FAILED.'",
    "COMMENT ON COLUMN runs.context IS 'Data of the workflow''s, an object.'",
    "COMMENT ON COLUMN runs.error IS 'Why it failed.'",
    "COMMENT ON COLUMN runs.started_at IS 'When it started.'",
    "COMMENT ON COLUMN runs.finished_at IS 'When it ended.'",
    "COMMENT ON COLUMN runs.updated_at IS 'When the row last changed.'",
    "COMMENT ON TABLE eval_results IS 'An evaluation of an item''s result.'",
    "COMMENT ON COLUMN eval_results.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN eval_results.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN eval_results.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN eval_results.work_item_id IS 'The item.'",
    "COMMENT ON COLUMN eval_results.evaluation_type IS 'What was evaluated.'",
    "COMMENT ON COLUMN eval_results.score IS 'From 0 to 1.'",
    "COMMENT ON COLUMN eval_results.metrics IS 'Single measurements, an object.'",
    "COMMENT ON COLUMN eval_results.passed IS 'Whether it is good enough.'",
    (
        "COMMENT ON TABLE audit_logs IS 'An action of a user or service. Append-only, and kept when its subject is"
        " deleted. Actions on tables that tenants share (capabilities, schemas, workflow templates) have the"
        " tenant `*`.'"
    ),
    "COMMENT ON COLUMN audit_logs.id IS 'The key, a UUIDv7 made by the client.'",
    "COMMENT ON COLUMN audit_logs.created_at IS 'When the row was made.'",
    "COMMENT ON COLUMN audit_logs.tenant_id IS 'The tenant that owns the row.'",
    "COMMENT ON COLUMN audit_logs.user_id IS 'Who acted.'",
    "COMMENT ON COLUMN audit_logs.action IS 'What was done.'",
    "COMMENT ON COLUMN audit_logs.resource_type IS 'The kind of thing that it was done to.'",
    "COMMENT ON COLUMN audit_logs.resource_id IS 'Its key.'",
    "COMMENT ON COLUMN audit_logs.details IS 'More about it, an object.'",
    "COMMENT ON COLUMN audit_logs.ip_address IS 'Where the request came from.'",
)

ROLLBACK = (
    "DROP TABLE audit_logs",
    "DROP TABLE eval_results",
    "DROP TABLE runs",
    "DROP TABLE workflow_templates",
    "DROP TABLE schemas",
    "DROP TABLE tool_capabilities",
    "DROP TABLE capabilities",
    "DROP TABLE tools",
    "DROP TABLE connectors",
    "DROP TABLE dead_letters",
    "DROP TABLE approval_events",
    "DROP TABLE mem_docs",
    "DROP TABLE attempts",
    "DROP TABLE work_items",
    "DROP TABLE work_orders",
    "DROP FUNCTION index_work_items(integer, text)",
    "DROP FUNCTION finish_work_items(uuid[], uuid[], jsonb, boolean, text, boolean, boolean)",
    """
    DROP FUNCTION claim_work_items(
        integer, text, double precision, uuid[], text[], text[], boolean, timestamptz[], uuid[], text[], boolean,
        uuid[]
    )
    """,
    "DROP FUNCTION submit_work_order_json(json)",
    """
    DROP FUNCTION submit_work_order(
        uuid, text, text, text, text, jsonb, text, uuid[], text[], text[], timestamptz, integer, text[], text[],
        jsonb, text
    )
    """,
    "DROP FUNCTION recount_work_orders(text)",
    "DROP FUNCTION miscounted_work_orders(text)",
    "DROP FUNCTION work_items_roll_up()",
    "DROP FUNCTION work_items_inherit_priority()",
    "DROP FUNCTION work_items_cancel_item()",
    "DROP FUNCTION work_orders_cancel_items()",
    "DROP FUNCTION work_orders_start_count()",
    "DROP FUNCTION mem_docs_guard()",
    "DROP FUNCTION refuse_change()",
    "DROP FUNCTION work_orders_guard()",
    "DROP FUNCTION work_items_guard()",
    "DROP FUNCTION refuse_transition()",
    "DROP FUNCTION query_all(text[], integer[], text[], boolean)",
    "DROP FUNCTION query_phrase(text, boolean)",
    "DROP FUNCTION query_row(text, boolean)",
    "DROP FUNCTION query_spellings(text)",
    "DROP FUNCTION query_beginning(text)",
    "DROP FUNCTION query_stems(text, boolean)",
    "DROP FUNCTION query_beginnings(text)",
    "DROP FUNCTION query_terms(text)",
    "DROP FUNCTION query_words(text)",
    "DROP FUNCTION content_matches(text, tsquery)",
    "DROP FUNCTION content_search(text)",
    "DROP FUNCTION content_words(text)",
    "DROP FUNCTION content_letters(text)",
    "DROP FUNCTION unspaced_scripts()",
    "DROP FUNCTION content_sha256(text)",
    "DROP DOMAIN retry_policy",
    "DROP DOMAIN object_jsonb",
    "DROP DOMAIN name_text",
    "DROP TYPE connector_status",
    "DROP TYPE connector_type",
    "DROP TYPE approval_decision",
    "DROP TYPE mem_doc_type",
    "DROP TYPE attempt_status",
    "DROP TYPE work_item_status",
    "DROP TYPE work_item_type",
    "DROP TYPE priority",
    "DROP TYPE work_order_status",
)
"""Extensions stay: other schemas of the database may use them."""


def migrate(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    """Create everything, in one transaction."""
    for statement in (*EXTENSIONS, *TYPES, *FUNCTIONS, *TABLES, *COMPRESSION, *INDEXES, *TRIGGERS, *COMMENTS):
        migrator.sql(statement)


def rollback(migrator: Migrator, database: peewee.Database, *, fake: bool = False) -> None:
    """Drop everything but the extensions."""
    for statement in ROLLBACK:
        migrator.sql(statement)
