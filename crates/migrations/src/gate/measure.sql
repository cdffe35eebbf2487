-- What the gate installs in its throw-away database: eyes, and nothing that a migration could notice.
-- The event triggers tell the server's log, which no rollback can silence. `obyra_gate.watch` says how
-- much: 'trace' (any other connection than the migration's), 'full' (a revision that is checked), 'touched' (its
-- round trip: only what it changes, since nobody waits for its locks), 'off'.
CREATE SCHEMA obyra_gate;
GRANT USAGE ON SCHEMA obyra_gate TO PUBLIC;

CREATE FUNCTION obyra_gate.mark(phase text, revision text, watch text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM set_config('obyra_gate.watch', watch, false);
  RAISE LOG 'obyra-gate %', json_build_object('phase', phase, 'revision', revision);
END $$;

-- The relations that were touched since the last look: their oids in a setting, which rolls back as they do.
-- 'other' stands for all that is no part of a relation: types, routines, schemas, extensions.
CREATE FUNCTION obyra_gate.touch(oids text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM set_config('obyra_gate.touched', concat_ws(' ', current_setting('obyra_gate.touched', true), oids), false);
END $$;

CREATE FUNCTION obyra_gate.before_command() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF current_setting('obyra_gate.watch', true) = 'full' THEN
    PERFORM set_config('obyra_gate.scans', coalesce((
      SELECT json_object_agg(oid, pg_stat_get_xact_numscans(oid))::text
        FROM pg_class WHERE relkind IN ('r', 'p', 'm') AND pg_stat_get_xact_numscans(oid) > 0), '{}'), true);
    PERFORM set_config('obyra_gate.rewritten', '', true);
  END IF;
END $$;

CREATE FUNCTION obyra_gate.rewriting() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF current_setting('obyra_gate.watch', true) = 'full' THEN
    PERFORM set_config('obyra_gate.rewritten',
      concat_ws(' ', nullif(current_setting('obyra_gate.rewritten', true), ''), pg_event_trigger_table_rewrite_oid()), true);
  END IF;
END $$;

CREATE FUNCTION obyra_gate.after_command() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  watch text := coalesce(current_setting('obyra_gate.watch', true), '');
  before json := coalesce(nullif(current_setting('obyra_gate.scans', true), ''), '{}');
  rewritten text[] := string_to_array(coalesce(current_setting('obyra_gate.rewritten', true), ''), ' ');
  relations text;
  identities json;
  altered json;
BEGIN
  IF watch NOT IN ('trace', 'full', 'touched') THEN
    RETURN;
  END IF;
  SELECT string_agg(DISTINCT coalesce(i.indrelid, t.tgrelid, p.polrelid, k.conrelid, r.ev_class,
           CASE d.classid WHEN 'pg_class'::regclass THEN d.objid END)::text, ' ')
         || CASE WHEN bool_or(d.classid NOT IN ('pg_class'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass,
                                                'pg_constraint'::regclass, 'pg_rewrite'::regclass)) THEN ' other' ELSE '' END,
         json_agg(d.object_type || ' ' || d.object_identity)
    INTO relations, identities
    FROM pg_event_trigger_ddl_commands() d
    LEFT JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid
    LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
    LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid;
  IF watch <> 'trace' THEN
    PERFORM obyra_gate.touch(coalesce(relations, CASE WHEN identities IS NOT NULL THEN 'other' END));
  END IF;
  IF watch = 'touched' THEN
    RETURN;
  END IF;
  IF watch = 'full' AND tg_tag = 'ALTER TABLE' THEN
    altered := (
      SELECT json_agg(json_build_object('oid', c.oid::bigint, 'name', format('%I.%I', n.nspname, c.relname), 'columns', (
               SELECT json_agg(json_build_array(format('%I', a.attname),
                        a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = ''))
                 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)))
        FROM pg_event_trigger_ddl_commands() d
        JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p')
        JOIN pg_namespace n ON n.oid = c.relnamespace);
  END IF;
  RAISE LOG 'obyra-gate %', json_build_object('command', tg_tag, 'query', left(current_query(), 4000),
    'objects', identities, 'altered', altered, 'locks', CASE WHEN watch = 'full' THEN (
      SELECT json_agg(json_build_object('oid', c.oid::bigint, 'mode', l.mode,
               'name', format('%I.%I', n.nspname, c.relname),
               'rewritten', c.oid::text = ANY (rewritten),
               'scanned', c.relkind IN ('r', 'p', 'm')
                          AND pg_stat_get_xact_numscans(c.oid) > coalesce((before ->> c.oid::text)::bigint, 0)))
        FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted
         AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
         AND c.relkind IN ('r', 'p', 'm')
         AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'obyra_gate')) END);
END $$;

-- A dropped index or policy is told by its own oid: whoever took the last snapshot knows whose it was.
CREATE FUNCTION obyra_gate.after_drop() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  IF current_setting('obyra_gate.watch', true) IN ('full', 'touched') THEN
    PERFORM obyra_gate.touch((
      SELECT string_agg(DISTINCT CASE
               WHEN classid = 'pg_attrdef'::regclass
                 THEN to_regclass(format('%I.%I', address_names[1], address_names[2]))::oid::text
               WHEN classid IN ('pg_class'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass,
                                'pg_constraint'::regclass, 'pg_rewrite'::regclass) THEN objid::text
               ELSE 'other' END, ' ')
        FROM pg_event_trigger_dropped_objects()));
  END IF;
  IF current_setting('obyra_gate.watch', true) = 'full' THEN
    RAISE LOG 'obyra-gate %', json_build_object('command', tg_tag, 'query', left(current_query(), 4000), 'dropped', (
      SELECT coalesce(json_agg(replace(object_type, 'table column', 'column') || ' ' || object_identity), '[]')
        FROM pg_event_trigger_dropped_objects()
       WHERE original AND NOT is_temporary AND object_type IN
             ('table', 'table column', 'view', 'materialized view', 'sequence', 'function', 'procedure')));
  END IF;
END $$;

-- What a statement that changes no catalogue does to tables: the driver asks before it and after it. What the
-- transaction of an autocommit block held is gone by then, as it is for others.
CREATE FUNCTION obyra_gate.held(OUT oid oid, OUT name text, OUT mode int, OUT writes boolean, OUT scans bigint) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT c.oid, format('%I.%I', n.nspname, c.relname),
         max(array_position('{ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}', l.mode)),
         bool_or(l.mode = 'RowExclusiveLock'), pg_stat_get_xact_numscans(c.oid)
    FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND c.relkind IN ('r', 'p', 'm')
     AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'obyra_gate')
   GROUP BY c.oid, n.nspname, c.relname
$$;

CREATE FUNCTION obyra_gate.before_statement() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  PERFORM set_config('obyra_gate.before', json_build_object(
    'modes', (SELECT json_object_agg(oid, mode) FROM obyra_gate.held()),
    -- Scans of earlier transactions count until the server takes them over.
    'scans', (SELECT json_object_agg(oid, pg_stat_get_xact_numscans(oid))
                FROM pg_class WHERE relkind IN ('r', 'p', 'm') AND pg_stat_get_xact_numscans(oid) > 0))::text, true);
END $$;

-- [oid, table, new lock that others notice, whether it was read whole and written].
CREATE FUNCTION obyra_gate.after_statement() RETURNS json
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  before json := coalesce(nullif(current_setting('obyra_gate.before', true), ''), '{}');
BEGIN
  RETURN (
    SELECT coalesce(json_agg(json_build_array(oid::bigint, name, locked, written)), '[]') FROM (
      SELECT h.oid, h.name, h.writes AND h.scans > coalesce((before -> 'scans' ->> h.oid::text)::bigint, 0) AS written,
             CASE WHEN h.mode > coalesce((before -> 'modes' ->> h.oid::text)::int, 0)
                  THEN ('{ShareLock,ShareRowExclusiveLock,ExclusiveLock,AccessExclusiveLock}'::text[])[h.mode] END AS locked
        FROM obyra_gate.held() h) did
     WHERE locked IS NOT NULL OR written);
END $$;

CREATE EVENT TRIGGER obyra_gate_before ON ddl_command_start EXECUTE FUNCTION obyra_gate.before_command();
CREATE EVENT TRIGGER obyra_gate_rewrite ON table_rewrite EXECUTE FUNCTION obyra_gate.rewriting();
CREATE EVENT TRIGGER obyra_gate_after ON ddl_command_end EXECUTE FUNCTION obyra_gate.after_command();
CREATE EVENT TRIGGER obyra_gate_drop ON sql_drop EXECUTE FUNCTION obyra_gate.after_drop();
