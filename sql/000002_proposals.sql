CREATE TABLE proposals (
  id uuid PRIMARY KEY,
  workflow_id uuid NOT NULL REFERENCES workflows,
  draft_id uuid NOT NULL REFERENCES drafts,
  created_by_user_id text NOT NULL REFERENCES users,
  -- The public name of the thread: the job id of the first attempt.
  thread_id uuid NOT NULL UNIQUE,
  status text NOT NULL DEFAULT 'processing' CHECK (status IN ('processing', 'completed', 'failed', 'resolved')),
  phase text DEFAULT 'invoking' CHECK (phase IN ('invoking', 'streaming', 'reconnecting', 'retrying', 'finalizing')),
  resolution text CHECK (resolution IN ('approved', 'rejected', 'expired', 'superseded')),
  attempt integer NOT NULL DEFAULT 1 CHECK (attempt > 0),
  user_prompt text NOT NULL,
  context_file_path text,
  context_selection text,
  retry_of uuid REFERENCES proposals,
  base_revision integer NOT NULL,
  -- path → sha256 of the draft as it was sent; a path that is not here was absent.
  base_hashes jsonb NOT NULL,
  -- Exactly what every invoke of every attempt sends: gzip of its JSON.
  input bytea NOT NULL,
  generated_files jsonb,
  warnings jsonb NOT NULL DEFAULT '[]',
  error jsonb,
  -- gzip of the frames that close the thread for every viewer; their epoch stands beside them.
  last_frames bytea,
  final_epoch text,
  owner_node text,
  owner_generation integer NOT NULL DEFAULT 1,
  taken_over integer NOT NULL DEFAULT 0,
  deadline_at timestamptz(3) NOT NULL,
  cancel_requested_at timestamptz(3),
  cancel_requested_by text REFERENCES users,
  access_version integer NOT NULL DEFAULT 1,
  resolved_by_user_id text REFERENCES users,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  completed_at timestamptz(3),
  resolved_at timestamptz(3),
  version integer NOT NULL DEFAULT 1,
  CHECK ((status = 'processing') = (phase IS NOT NULL)),
  CHECK ((status = 'resolved') = (resolution IS NOT NULL)),
  CHECK ((status = 'failed') = (error IS NOT NULL)),
  CHECK (status NOT IN ('completed', 'resolved') OR generated_files IS NOT NULL),
  CHECK (status = 'processing' OR owner_node IS NULL)
) WITH (fillfactor = 80);
ALTER TABLE proposals ALTER COLUMN input SET STORAGE EXTERNAL, ALTER COLUMN last_frames SET STORAGE EXTERNAL;

CREATE INDEX proposals_workflow ON proposals (workflow_id, created_at DESC, id DESC);
CREATE INDEX proposals_draft ON proposals (draft_id);
CREATE INDEX proposals_created_by ON proposals (created_by_user_id);
CREATE INDEX proposals_status ON proposals (status);
CREATE INDEX proposals_unfinished ON proposals (owner_node) WHERE status = 'processing';
CREATE INDEX proposals_undecided ON proposals (completed_at) WHERE status = 'completed';
CREATE INDEX proposals_retry_of ON proposals (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX proposals_cancelled_by ON proposals (cancel_requested_by) WHERE cancel_requested_by IS NOT NULL;
CREATE INDEX proposals_resolved_by ON proposals (resolved_by_user_id) WHERE resolved_by_user_id IS NOT NULL;

CREATE TABLE attempts (
  proposal_id uuid NOT NULL REFERENCES proposals,
  attempt integer NOT NULL CHECK (attempt > 0),
  job_id uuid NOT NULL UNIQUE,
  -- What the runtime called the run; NULL while invoke has not been answered.
  runtime_thread_id text CHECK (length(runtime_thread_id) BETWEEN 1 AND 255),
  runtime_epoch text,
  -- NULL = open, 'completed', or the code of the failure that closed it.
  outcome text,
  started_at timestamptz(3) NOT NULL DEFAULT now(),
  ended_at timestamptz(3),
  cleaned_at timestamptz(3),
  PRIMARY KEY (proposal_id, attempt),
  CHECK ((outcome IS NULL) = (ended_at IS NULL))
);
CREATE INDEX attempts_ended ON attempts (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE transcripts (
  proposal_id uuid NOT NULL,
  attempt integer NOT NULL,
  epoch text NOT NULL,
  first_seq integer NOT NULL,
  last_seq integer NOT NULL,
  frames bytea NOT NULL,
  saved_at timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (proposal_id, attempt, epoch),
  FOREIGN KEY (proposal_id, attempt) REFERENCES attempts
);
ALTER TABLE transcripts ALTER COLUMN frames SET STORAGE EXTERNAL;
CREATE INDEX transcripts_saved ON transcripts (saved_at);

CREATE TABLE proposal_access (
  proposal_id uuid NOT NULL REFERENCES proposals,
  user_id text NOT NULL REFERENCES users,
  role text NOT NULL CHECK (role IN ('owner', 'viewer')),
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (proposal_id, user_id)
);
CREATE INDEX proposal_access_user ON proposal_access (user_id);

-- Append-only. The id is made by the writer before its first try, so that a commit whose answer was lost can be
-- looked up (rule 2); row_version is the version that the transition gave to the proposal, and orders the audit.
CREATE TABLE proposal_transitions (
  id uuid PRIMARY KEY,
  proposal_id uuid NOT NULL REFERENCES proposals,
  row_version integer NOT NULL,
  from_state text,
  to_state text NOT NULL,
  event text NOT NULL,
  actor_user_id text REFERENCES users,
  attempt integer NOT NULL,
  at timestamptz(3) NOT NULL DEFAULT now(),
  details jsonb,
  UNIQUE (proposal_id, row_version)
);
CREATE INDEX proposal_transitions_actor ON proposal_transitions (actor_user_id) WHERE actor_user_id IS NOT NULL;
CREATE TRIGGER proposal_transitions_append_only BEFORE UPDATE OR DELETE ON proposal_transitions
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
