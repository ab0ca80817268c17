/** When which part was dead, on its way back, frozen or cut off from the database; milliseconds since 1970. */
export interface Troubles {
  /** The answer ends it. */
  begin(part: string): () => void;
  between(part: string, from: number, to: number): boolean;
}

export function createTroubles(now: () => number = Date.now): Troubles {
  const list: { part: string; from: number; to: number | null }[] = [];
  return {
    begin(part) {
      const trouble = { part, from: now(), to: null as number | null };
      list.push(trouble);
      return () => {
        trouble.to ??= now();
      };
    },
    between: (part, from, to) =>
      list.some((one) => one.part === part && one.from < to && (one.to === null || one.to > from)),
  };
}
