-- Up Migration
-- One row per job. `json`, not `jsonb`: input, files and error are passed on as they came (key order,
-- escapes), never searched.
CREATE TABLE runs (
  thread_id text PRIMARY KEY,
  status text NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed', 'deleted')),
  -- What invoke was given: a run without a checkpoint starts anew from it. Null once cleaned up.
  input json,
  trace_id text,
  -- W3C trace context of the invoke, so that a resumed run stays in its trace.
  traceparent text,
  -- Number of the event log that readers see; see guarantees.md in the contract of both services.
  epoch integer NOT NULL DEFAULT 1 CHECK (epoch >= 1),
  -- True once the present epoch is the finished run rebuilt from this row: later rebuilds are the same log.
  rebuilt boolean NOT NULL DEFAULT false,
  -- Raised whenever a process takes the run: later writes of the process before it touch no row.
  generation integer NOT NULL DEFAULT 1,
  files json,
  error json,
  cancel_requested_at timestamptz,
  -- Set before anything is deleted; such a row is never started or resumed, and its job never run again.
  tombstone_at timestamptz,
  purged_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  deadline_at timestamptz,
  finished_at timestamptz
);

-- The start of a process asks for what is unfinished, /metrics counts by status.
CREATE INDEX runs_status ON runs (status);
CREATE INDEX runs_unpurged ON runs (tombstone_at) WHERE tombstone_at IS NOT NULL AND purged_at IS NULL;
