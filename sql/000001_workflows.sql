-- Times carry milliseconds, which is all that the wire shows: a cursor made from a shown time then names its row exactly.
CREATE TABLE users (
  id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
  created_at timestamptz(3) NOT NULL DEFAULT now()
);

CREATE TABLE workflows (
  id uuid PRIMARY KEY,
  user_id text NOT NULL REFERENCES users,
  name text NOT NULL,
  description text,
  -- The counter outlives every draft and never restarts (rule 6).
  draft_revision integer NOT NULL DEFAULT 0 CHECK (draft_revision >= 0),
  production_version integer,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  deleted_at timestamptz(3)
);
CREATE INDEX workflows_user ON workflows (user_id, created_at DESC, id DESC);

CREATE TABLE versions (
  workflow_id uuid NOT NULL REFERENCES workflows,
  version_number integer NOT NULL CHECK (version_number > 0),
  created_by_user_id text NOT NULL REFERENCES users,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (workflow_id, version_number)
);
CREATE INDEX versions_created_by ON versions (created_by_user_id);

CREATE TABLE version_files (
  workflow_id uuid NOT NULL,
  version_number integer NOT NULL,
  path text NOT NULL,
  content text NOT NULL,
  sha256 text NOT NULL CHECK (length(sha256) = 64),
  revision integer NOT NULL,
  updated_at timestamptz(3) NOT NULL,
  PRIMARY KEY (workflow_id, version_number, path),
  FOREIGN KEY (workflow_id, version_number) REFERENCES versions
);

ALTER TABLE workflows
  ADD CONSTRAINT workflows_production FOREIGN KEY (id, production_version) REFERENCES versions;
CREATE INDEX workflows_production_version ON workflows (id, production_version) WHERE production_version IS NOT NULL;

-- A workflow has one draft for life. Deleted, it keeps its row and its tombstones, and is made anew in place.
CREATE TABLE drafts (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  workflow_id uuid NOT NULL UNIQUE REFERENCES workflows,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  deleted_at timestamptz(3)
);

-- content NULL = tombstone: the path was deleted in that revision.
CREATE TABLE draft_files (
  draft_id uuid NOT NULL REFERENCES drafts,
  path text NOT NULL,
  content text,
  sha256 text CHECK (length(sha256) = 64),
  revision integer NOT NULL CHECK (revision > 0),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  PRIMARY KEY (draft_id, path),
  CHECK ((content IS NULL) = (sha256 IS NULL))
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% never changes once written', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER versions_immutable BEFORE UPDATE OR DELETE ON versions
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER version_files_immutable BEFORE UPDATE OR DELETE ON version_files
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
