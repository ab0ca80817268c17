/** Stands in for the runtime's process: answers /ready after a while, tells its environment, dies when asked. */
import http from 'node:http';

const env = process.env;
if (env.LOG_LEVEL === 'fail') {
  console.error('the stand-in refuses to start');
  process.exit(3);
}
const readyAt = performance.now() + 150;
const server = http.createServer((request, response) => {
  if (request.url === '/die') process.kill(process.pid, 'SIGKILL');
  response.writeHead(request.url === '/ready' && performance.now() < readyAt ? 503 : 200);
  response.end(JSON.stringify({ pid: process.pid, env }));
});
server.listen(Number(env.RUNTIME_PORT), env.RUNTIME_HOST);
process.on('SIGTERM', () => {
  server.closeAllConnections();
  server.close(() => process.exit(0));
});
