-- Clean-ups that the runtime has not confirmed. References nothing: it outlives whatever ordered it (rule 6).
CREATE TABLE outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  job_id uuid NOT NULL UNIQUE,
  runtime_thread_id text,
  due_at timestamptz(3) NOT NULL DEFAULT now(),
  claimed_by text,
  tries integer NOT NULL DEFAULT 0,
  created_at timestamptz(3) NOT NULL DEFAULT now()
);
CREATE INDEX outbox_due ON outbox (due_at);

CREATE TABLE nodes (
  id text PRIMARY KEY,
  name text NOT NULL,
  beat bigint NOT NULL DEFAULT 0,
  runtime_reachable boolean NOT NULL DEFAULT false,
  started_at timestamptz(3) NOT NULL DEFAULT now()
);

-- One-time credentials of the socket; the ticket itself is never stored.
CREATE TABLE tickets (
  hash text PRIMARY KEY,
  user_id text NOT NULL,
  thread_id uuid NOT NULL,
  expires_at timestamptz(3) NOT NULL
);
CREATE INDEX tickets_expiry ON tickets (expires_at);

-- A key of a refinement names its proposal and is answered from that row; any other keeps its answer.
-- holder is the try that works under the key.
CREATE TABLE idempotency_keys (
  user_id text NOT NULL,
  route text NOT NULL,
  key text NOT NULL,
  body_hash text NOT NULL,
  holder uuid NOT NULL,
  proposal_id uuid,
  status integer,
  body jsonb,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  answered_at timestamptz(3),
  PRIMARY KEY (user_id, route, key)
);
CREATE INDEX idempotency_keys_proposal ON idempotency_keys (proposal_id) WHERE proposal_id IS NOT NULL;
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
