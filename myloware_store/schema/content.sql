-- The functions of a content: its hash, its words, and whether it matches a query.

-- convert_to() is only stable, since it looks encodings up by name; for UTF8 the answer never changes.
CREATE FUNCTION content_sha256(content text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN sha256(convert_to(content, 'UTF8'));

-- The scripts without blanks between words, as a part of a regular expression: Thai, Lao, Burmese, Khmer, Japanese, Chinese;
-- also Korean, where particles are glued to words.
CREATE FUNCTION unspaced_scripts() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u3005-\u3007\u3040-\u30FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7AF'
    '\uF900-\uFAFF\U00020000-\U0003FFFF';

-- A text in small letters without accents, with blanks for punctuation beyond ASCII; and its words that have accents, with
-- them. It depends on no locale: up to PostgreSQL 18 lower() and the text search parser ask the database's LC_CTYPE, for
-- which, if it is C, every character beyond ASCII is a letter and has no small form.
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
$$;

-- The words of a content or a query, in the order of the text and separated by blanks; and other forms of some of them:
-- those with accents, and identifiers in one piece and in their parts (HP-2025-0142 as hp20250142, HP2025 as hp 2025,
-- MAX_SIZE as maxsize, maxSize as max size).
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
$$;

-- The words of a content as they are indexed. A tsvector is limited to 1 MB: of a content with more different words it holds
-- those of the beginning, and a blank, which the parser never returns.
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
$$;

-- Whether a content matches, however many words it has: beyond the limit it is read in pieces, too small to reach it, of
-- which only the query's words are kept, and the last word, from which the positions of the next piece are counted.
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
$$;

-- The words of a query and their other forms, with blanks between them: e-mail is also email. ABC is AB BC.
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
$$;

-- The words of a query that count in a score, each as a query of its own, and as it is typed. ABC is asked for as AB BC: C
-- is there to be found alone, and then as the beginning of a pair, too.
CREATE FUNCTION query_terms(typed text) RETURNS TABLE (term tsquery, word text) LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT
        (quote_literal(stem) || CASE WHEN stem ~ unspaced THEN ':*' ELSE '' END)::tsquery AS term,
        min(lexeme) AS word
    FROM (SELECT '^[' || unspaced_scripts() || ']$') AS alone (unspaced),
        unnest(to_tsvector('pg_catalog.simple', query_words(typed))),
        unnest(tsvector_to_array(to_tsvector('pg_catalog.english', lexeme))) AS stem
    GROUP BY stem, unspaced
$$;

-- The words of a query as they are typed, without stop words, but for the last word, which may be the beginning of another.
CREATE FUNCTION query_beginnings(typed text) RETURNS SETOF text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT DISTINCT lexeme
    FROM (
        SELECT lexeme, place, max(place) OVER () AS last
        FROM unnest(to_tsvector('pg_catalog.simple', query_words(typed))), LATERAL unnest(positions) AS place
    ) AS words
    WHERE to_tsvector('pg_catalog.english', lexeme) <> '' OR place = last
$$;

-- The stems of words that begin with a text, if they do not begin with it themselves: of gardeni, garden; of universi,
-- univers. These ends complete nearly all of 20,000 beginnings of English words to words of the same stem. Or the ends of
-- stems of words that have the text inside: the stemmer cuts more of longer words (transaction, transact).
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
$$;

-- A word that begins with a text.
CREATE FUNCTION query_beginning(beginning text) RETURNS tsquery LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT string_agg(word, ' | ')::tsquery
    FROM (
        SELECT quote_literal(beginning) || ':*' AS word
        UNION ALL SELECT quote_literal(stem) FROM unnest(query_stems(beginning, false)) AS stem
    ) AS words
$$;

-- The stems of what differs from a word by one letter more, one less, another one, or two that changed places; none for words
-- of fewer than four letters, or of others than the Latin ones.
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
$$;

-- Words in a row; or words that begin like these, in a row.
CREATE FUNCTION query_row(words text, beginnings bool) RETURNS tsquery LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN NOT beginnings THEN phraseto_tsquery('pg_catalog.english', words) ELSE COALESCE((
        SELECT string_agg(distance || '(' || query_beginning(lexeme)::text || ')', '' ORDER BY place)
        FROM (
            SELECT lexeme, place, COALESCE(' <' || place - lag(place) OVER (ORDER BY place) || '> ', '') AS distance
            FROM unnest(to_tsvector('pg_catalog.simple', words)) AS word (lexeme, places), unnest(places) AS place
            WHERE to_tsvector('pg_catalog.english', lexeme) <> ''
        ) AS words
    ), '')::tsquery END
$$;

-- What a content must hold for a word or a phrase: its words in a row, or an identifier in another spelling.
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
$$;

-- What a content must hold for a whole query: all phrases of one of the options, and none that is excluded; or words that
-- begin like theirs. The phrases of an option stand beside each other.
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
$$;
