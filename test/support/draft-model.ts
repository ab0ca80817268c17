/** What a draft's life should be, in texts and plain maps: the model that random histories are compared with. */
type Texts = Map<string, string>;
type Change = Readonly<Record<string, string | null>>;

interface ModelProposal {
  readonly base: Texts;
  status: 'processing' | 'completed' | 'approved' | 'rejected' | 'superseded';
  generated: Change;
}

export const createDraftModel = (first: Record<string, string>) => {
  let draft: Texts | null = new Map(Object.entries(first));
  let revision = 1;
  const written = new Map([...draft.keys()].map((path) => [path, 1]));
  const versions: Texts[] = [];
  const proposals: ModelProposal[] = [];

  const write = (changes: [string, string | null][]) => {
    if (changes.length === 0) return;
    revision += 1;
    draft ??= new Map();
    for (const [path, text] of changes) {
      written.set(path, revision);
      if (text === null) draft.delete(path);
      else draft.set(path, text);
    }
  };

  return {
    proposals,
    state: () => ({ revision, texts: draft && Object.fromEntries([...draft].sort()) }),
    revision: () => revision,
    hasDraft: () => draft !== null,
    put: (base: number, files: Change): string[] | 'ok' => {
      const late = Object.keys(files).filter((path) => (written.get(path) ?? 0) > base);
      if ((draft || base > 0) && late.length > 0) return late.sort();
      draft ??= new Map();
      const before = draft;
      write(Object.entries(files).filter(([path, text]) => text !== null || before.has(path)));
      return 'ok';
    },
    start: () => {
      if (!draft) {
        draft = new Map();
        write([...(versions.at(-1) ?? [])]);
      }
      proposals.push({ base: new Map(draft), status: 'processing', generated: {} });
    },
    complete: (index: number, generated: Change) => {
      Object.assign(proposals[index] ?? {}, { status: 'completed', generated });
    },
    reject: (index: number) => {
      Object.assign(proposals[index] ?? {}, { status: 'rejected' });
    },
    approve: (
      index: number,
      paths: readonly string[],
      side: 'proposal' | 'draft' | null,
    ): string[] | number => {
      const proposal = proposals[index];
      if (!proposal) return 0;
      const now = (path: string) => draft?.get(path) ?? null;
      const was = (path: string) => proposal.base.get(path) ?? null;
      const wanted = (path: string) => proposal.generated[path] ?? null;
      const open = paths.filter((path) => wanted(path) !== was(path) && wanted(path) !== now(path)).sort();
      const contested = open.filter((path) => now(path) !== was(path));
      if (contested.length > 0 && side === null) return contested;
      const applied = open.filter((path) => side === 'proposal' || !contested.includes(path));
      write(applied.map((path) => [path, wanted(path)]));
      proposal.status = 'approved';
      return applied.length;
    },
    deleteDraft: (): boolean => {
      if (!draft) return false;
      const paths = [...draft.keys()];
      revision += 1;
      for (const path of paths) written.set(path, revision);
      draft = null;
      for (const proposal of proposals) if (proposal.status === 'completed') proposal.status = 'superseded';
      return true;
    },
    publish: (): boolean => {
      if (draft) versions.push(new Map(draft));
      return draft !== null;
    },
  };
};
