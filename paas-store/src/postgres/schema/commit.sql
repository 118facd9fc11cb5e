CREATE FUNCTION paas.present(given bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(given, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint)
$$;

-- The class of work that is wanted twice: that of the earlier time; of what is due by now as both, the cheaper.
CREATE FUNCTION paas.merged_class(one text, one_at bigint, other text, other_at bigint, now bigint)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN one_at IS NULL THEN other
        WHEN greatest(one_at, other_at) <= now AND 'light' IN (one, other) THEN 'light'
        WHEN one_at <= other_at THEN one
        ELSE other
    END
$$;

CREATE FUNCTION paas.remove_record(_kind text, _id bytea) RETURNS void LANGUAGE sql AS $$
    DELETE FROM paas.unique_keys WHERE kind = _kind AND id = _id;
    DELETE FROM paas.index_keys WHERE kind = _kind AND id = _id;
    DELETE FROM paas.records WHERE kind = _kind AND id = _id;
$$;

-- Takes the batch back. `why` is one of `fenced`, `changed`, `missing` and `taken`.
CREATE FUNCTION paas.refuse(why text, detail text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'PAAS0', MESSAGE = why, DETAIL = detail;
END
$$;

-- Applies one batch, all of it or nothing.
--
-- Commits of all servers take turns under one lock, which is held until the transaction has become visible. So
-- positions become visible in their order, no two batches see each other half done, and none waits for another in a
-- circle. One transaction carries all batches that wait in a process: the turn costs one synced write, however many
-- they are.
--
-- An expected version is -1 for any and -2 for none. `unique_of` and `index_of` say to which write a key belongs.
-- Arrays are read by their elements where they are mostly short: opening a query over them costs ten times as much.
CREATE FUNCTION paas.commit_batch(
    given bigint, _writer bigint, _place integer, _number bigint,
    fence_key bytea, fence_number bigint,
    operations text[], kinds text[], ids bytea[], scopes text[], expects bigint[], expiries bigint[], bodies bytea[],
    unique_of bigint[], unique_names text[], unique_values bytea[], unique_reaches text[],
    index_of bigint[], index_names text[], index_values bytea[],
    streams bytea[], owners text[], lengths bigint[], times bigint[], counts bigint[], events bytea[],
    changes text[], work_keys bytea[], work_scopes text[], work_fences bigint[], work_classes text[], work_waits bigint[],
    OUT _versions bigint[], OUT _positions bigint[], OUT refusal text, OUT detail text
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    _now bigint;
    _operation text;
    _kind text;
    _id bytea;
    _scope text;
    _expect bigint;
    _stream bytea;
    _key record;
    _found record;
    _exists boolean;
    _version bigint;
    _position bigint;
    _event bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(8097860751537995777);
    _now := coalesce(given, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint);
    _versions := '{}';
    _positions := '{}';

    IF fence_key IS NOT NULL THEN
        -- Locked, so that nobody claims it before this is done.
        PERFORM 1 FROM paas.work w
            WHERE w.key = fence_key AND w.fence = fence_number AND w.expires_at > _now FOR UPDATE;
        IF NOT FOUND THEN PERFORM paas.refuse('fenced'); END IF;
    END IF;

    FOR _at IN 1 .. cardinality(operations) LOOP
        _operation := operations[_at];
        _kind := kinds[_at];
        _id := ids[_at];
        _scope := scopes[_at];
        _expect := expects[_at];
        -- What every step does, in one statement.
        IF _operation = 'update' AND _expect <> -1 THEN
            UPDATE paas.records r SET version = r.version + 1, body = bodies[_at]
                WHERE r.kind = _kind AND r.id = _id AND r.scope = _scope AND r.version = _expect
                    AND (r.expires_at IS NULL OR r.expires_at > _now);
            IF NOT FOUND THEN PERFORM paas.refuse('changed'); END IF;
            _versions := _versions || (_expect + 1);
            CONTINUE;
        END IF;

        SELECT r.version, r.scope, r.expires_at INTO _found
            FROM paas.records r WHERE r.kind = _kind AND r.id = _id;
        _exists := FOUND;
        IF _exists AND _found.expires_at <= _now THEN
            IF _operation = 'put' THEN PERFORM paas.remove_record(_kind, _id); END IF;
            _exists := false;
        END IF;
        -- What another one owns is as good as absent, but can't be replaced.
        IF _exists AND _found.scope <> _scope THEN
            IF _operation = 'put' THEN PERFORM paas.refuse('changed'); END IF;
            _exists := false;
        END IF;
        IF (_expect = -2 AND _exists) OR (_expect >= 0 AND (NOT _exists OR _found.version <> _expect)) THEN
            PERFORM paas.refuse('changed');
        END IF;
        _version := CASE WHEN _exists THEN _found.version + 1 ELSE 1 END;

        IF _operation = 'update' THEN
            IF NOT _exists THEN PERFORM paas.refuse('missing'); END IF;
            UPDATE paas.records SET version = _version, body = bodies[_at] WHERE kind = _kind AND id = _id;
        ELSIF _operation = 'remove' THEN
            IF _exists THEN PERFORM paas.remove_record(_kind, _id); END IF;
            _version := 0;
        ELSE
            IF _exists THEN
                UPDATE paas.records SET version = _version, expires_at = expiries[_at], body = bodies[_at]
                    WHERE kind = _kind AND id = _id;
                DELETE FROM paas.unique_keys WHERE kind = _kind AND id = _id;
                DELETE FROM paas.index_keys WHERE kind = _kind AND id = _id;
            ELSE
                INSERT INTO paas.records (kind, id, scope, version, expires_at, body)
                    VALUES (_kind, _id, _scope, 1, expiries[_at], bodies[_at]);
            END IF;
            FOR _key IN
                SELECT * FROM unnest(unique_of, unique_names, unique_values, unique_reaches)
                    WITH ORDINALITY AS k (write, name, value, reach, place)
                    WHERE k.write = _at
            LOOP
                INSERT INTO paas.unique_keys (kind, name, value, reach, id)
                    VALUES (_kind, _key.name, _key.value, _key.reach, _id) ON CONFLICT DO NOTHING;
                CONTINUE WHEN FOUND;
                SELECT u.id, r.expires_at INTO _found
                    FROM paas.unique_keys u JOIN paas.records r ON r.kind = u.kind AND r.id = u.id
                    WHERE u.kind = _kind AND u.name = _key.name AND u.value = _key.value AND u.reach = _key.reach;
                CONTINUE WHEN _found.id = _id;
                -- A holder that expired lets go of it.
                IF _found.expires_at IS NULL OR _found.expires_at > _now THEN
                    PERFORM paas.refuse('taken', _key.place::text);
                END IF;
                PERFORM paas.remove_record(_kind, _found.id);
                INSERT INTO paas.unique_keys (kind, name, value, reach, id)
                    VALUES (_kind, _key.name, _key.value, _key.reach, _id);
            END LOOP;
            INSERT INTO paas.index_keys (kind, name, value, id, scope)
                SELECT _kind, k.name, k.value, _id, _scope
                FROM unnest(index_of, index_names, index_values) AS k (write, name, value)
                WHERE k.write = _at ON CONFLICT DO NOTHING;
        END IF;
        _versions := _versions || _version;
    END LOOP;

    FOR _at IN 1 .. cardinality(streams) LOOP
        _stream := streams[_at];
        _version := lengths[_at];
        SELECT e.version, e.scope INTO _found
            FROM paas.events e WHERE e.stream = _stream ORDER BY e.version DESC LIMIT 1;
        IF coalesce(_found.version, 0) <> _version OR _found.scope <> owners[_at] THEN
            PERFORM paas.refuse('changed');
        END IF;
        FOR _offset IN 1 .. counts[_at] LOOP
            _position := nextval('paas.positions');
            INSERT INTO paas.events (position, stream, version, scope, at, body)
                VALUES (_position, _stream, _version + _offset, owners[_at], times[_at], events[_event + _offset]);
            IF _offset = 1 THEN _positions := _positions || _position; END IF;
        END LOOP;
        IF counts[_at] = 0 THEN _positions := _positions || 0::bigint; END IF;
        _event := _event + counts[_at];
    END LOOP;

    FOR _at IN 1 .. cardinality(changes) LOOP
        IF changes[_at] = 'schedule' THEN
            PERFORM paas.schedule_work(work_keys[_at], work_scopes[_at], work_classes[_at], _now + work_waits[_at], _now);
        ELSE
            PERFORM paas.release_work(work_keys[_at], work_fences[_at], work_classes[_at], _now + work_waits[_at], _now);
        END IF;
    END LOOP;

    INSERT INTO paas.commits AS c (writer, place, number, versions, positions)
        VALUES (_writer, _place, _number, _versions, _positions)
        ON CONFLICT (writer, place) DO UPDATE
        SET number = excluded.number, versions = excluded.versions, positions = excluded.positions, at = excluded.at
        WHERE c.number < excluded.number;
    -- Whoever asked for this was cut off, and was told that it did not happen.
    IF NOT FOUND THEN RAISE EXCEPTION USING ERRCODE = 'PAAS1', MESSAGE = 'given up'; END IF;
EXCEPTION WHEN SQLSTATE 'PAAS0' THEN
    GET STACKED DIAGNOSTICS refusal = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    _versions := NULL;
    _positions := NULL;
END
$$;

-- What became of a batch whose answer was lost: the versions and positions it was given, or nothing if it did not
-- happen. After that it never will: if it is under way, this waits for its end; if it comes later, it is refused.
CREATE FUNCTION paas.recall_batch(
    _writer bigint, _place integer, _number bigint, OUT happened boolean, OUT _versions bigint[], OUT _positions bigint[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO paas.commits AS c (writer, place, number) VALUES (_writer, _place, _number)
        ON CONFLICT (writer, place) DO UPDATE SET number = excluded.number, versions = NULL, positions = NULL
        WHERE c.number < excluded.number;
    SELECT c.versions IS NOT NULL, c.versions, c.positions INTO happened, _versions, _positions
        FROM paas.commits c WHERE c.writer = _writer AND c.place = _place;
END
$$;

-- Removes expired records, at most `most`, and what connections left behind that ended a day ago.
CREATE FUNCTION paas.sweep(given bigint, most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _now bigint := paas.present(given);
    _record record;
    _swept bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(8097860751537995777);
    DELETE FROM paas.commits WHERE at < now() - interval '1 day';
    FOR _record IN
        SELECT kind, id FROM paas.records WHERE expires_at <= _now ORDER BY expires_at LIMIT most
    LOOP
        PERFORM paas.remove_record(_record.kind, _record.id);
        _swept := _swept + 1;
    END LOOP;
    RETURN _swept;
END
$$;
