import { isStorableText, limits } from '@ide-orchestrator/protocol';
import type { Route } from './route.js';

export type Match =
  | { kind: 'route'; route: Route; params: Record<string, string> }
  /** The path is known, the method is not. */
  | { kind: 'other_method'; allow: string[] }
  /** No such path, or an id that cannot be one; `pattern` labels the metric where the path is known. */
  | { kind: 'none'; pattern: string | null };

export interface Router {
  /** `path` percent-encoded, as it came. HEAD is served by GET. */
  match(method: string, path: string): Match;
}

interface Node {
  fixed: Map<string, Node>;
  parameter: { name: string; node: Node } | null;
  routes: Map<string, Route>;
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Matches paths by their segments; a fixed segment goes before a parameter. */
export function createRouter(routes: readonly Route[]): Router {
  const root = emptyNode();
  for (const route of routes) {
    let node = root;
    for (const segment of route.path.split('/').slice(1)) node = descend(node, segment);
    node.routes.set(route.method, route);
  }
  return {
    match(method, path) {
      const raw: [string, string][] = [];
      let node: Node | undefined = root;
      for (const segment of path.split('/').slice(1)) {
        const next: Node | undefined = node.fixed.get(segment) ?? node.parameter?.node;
        if (next === undefined) return { kind: 'none', pattern: null };
        if (!node.fixed.has(segment) && node.parameter !== null) raw.push([node.parameter.name, segment]);
        node = next;
      }
      if (node.routes.size === 0) return { kind: 'none', pattern: null };
      const route = node.routes.get(method === 'HEAD' ? 'GET' : method);
      if (route === undefined) return { kind: 'other_method', allow: allowOf(node) };
      const params: Record<string, string> = {};
      for (const [name, segment] of raw) {
        const value = parameterOf(name, segment);
        if (value === null) return { kind: 'none', pattern: route.path };
        params[name] = value;
      }
      return { kind: 'route', route, params };
    },
  };
}

function emptyNode(): Node {
  return { fixed: new Map(), parameter: null, routes: new Map() };
}

function descend(node: Node, segment: string): Node {
  const name = /^\{(\w+)\}$/.exec(segment)?.[1];
  if (name !== undefined) {
    node.parameter ??= { name, node: emptyNode() };
    return node.parameter.node;
  }
  const next = node.fixed.get(segment) ?? emptyNode();
  node.fixed.set(segment, next);
  return next;
}

function allowOf(node: Node): string[] {
  const methods = [...node.routes.keys()];
  if (methods.includes('GET')) methods.push('HEAD');
  return [...methods, 'OPTIONS'].sort();
}

/** The decoded value, or null where it cannot name anything: that is 404, not 422, as for an id that names nothing. */
function parameterOf(name: string, segment: string): string | null {
  let value: string;
  try {
    value = decodeURIComponent(segment);
  } catch {
    return null;
  }
  if (name === 'user_id') {
    return value.length >= 1 && value.length <= limits.userIdCharacters && isStorableText(value)
      ? value
      : null;
  }
  if (name.endsWith('_id')) return uuid.test(value) ? value.toLowerCase() : null;
  return /^[1-9]\d{0,9}$/.test(value) && Number(value) <= 2_147_483_647 ? value : null;
}
