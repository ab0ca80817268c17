/**
 * The one place that names the package: it is somebody else's publication of uWebSockets.js. Its
 * CommonJS exports are set by a native module, which named imports cannot see.
 */
import uws from 'uWebSockets.js';

export type {
  HttpRequest,
  HttpResponse,
  us_listen_socket,
  us_socket_context_t,
  WebSocket,
} from 'uWebSockets.js';

export const { App, us_listen_socket_close, us_socket_local_port } = uws;
