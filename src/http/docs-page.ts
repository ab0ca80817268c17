import { createHash } from 'node:crypto';
import { httpErrors } from '@ide-orchestrator/protocol';
import type { Route } from './route.js';

const style = `body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
code{font:14px ui-monospace,monospace}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #d8dee4}
.method{display:inline-block;min-width:4.5rem;font-weight:600}@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}td,th{border-color:#30363d}a{color:#58a6ff}}`;

/** The policy that lets exactly this page's style through, and no script at all. */
export const docsPolicy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; frame-ancestors 'none'`;

/** The API on one page, for people; programs read /openapi.json. */
export function docsPageOf(routes: readonly Route[], info: { title: string; version: string }): string {
  const tags = [...new Set(routes.map((route) => route.tag))];
  const sections = tags.map(
    (tag) =>
      `<h2>${escaped(tag)}</h2><table>${routes
        .filter((route) => route.tag === tag)
        .map(
          (route) =>
            `<tr><td><code><span class="method">${route.method}</span> ${escaped(route.path)}</code></td><td>${escaped(route.summary)}<br><small>${escaped(Object.keys(route.answers).join(', '))}${route.errors.length === 0 ? '' : ` · ${route.errors.map((code) => `<code>${code}</code>`).join(' ')}`}</small></td></tr>`,
        )
        .join('')}</table>`,
  );
  const errors = Object.entries(httpErrors).map(
    ([code, entry]) =>
      `<tr><td><code>${code}</code></td><td>${entry.status}</td><td>${escaped(entry.title)}</td><td>${escaped(entry.advice)}</td></tr>`,
  );
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${escaped(info.title)}</title><style>${style}</style>
<h1>${escaped(info.title)} <small>${escaped(info.version)}</small></h1>
<p>Every call under <code>/api</code> carries <code>Authorization: Bearer &lt;JWT&gt;</code>. The contracts: <a href="/openapi.json">OpenAPI</a> for the calls, <a href="/asyncapi.json">AsyncAPI</a> for the socket <code>/api/ws/refinements/{thread_id}</code>.</p>
${sections.join('\n')}
<h2>errors</h2><table><tr><th>code</th><th>status</th><th>means</th><th>advice</th></tr>${errors.join('')}</table></html>`;
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
