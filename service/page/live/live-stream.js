// A connection to the service's WebSocket for live audio.

import { keyProtocols } from '../api/api-key.js';
import { BASE, servedModel } from '../api/http-api.js';
import { Problem } from '../api/problem.js';

/** Bytes that may wait to be sent: five seconds at 48 kHz. With more, the connection is too slow and is closed. */
const MAX_BUFFERED_BYTES = 480_000;

/** @typedef {{type: 'ready', id: string, model: import('../api/http-api.js').Model, window: number, hop: number}} ReadyEvent */
/** @typedef {import('../api/http-api.js').Segment & {type: 'window', skipped: number}} WindowEvent */
/** @typedef {import('../api/http-api.js').Segment & {type: 'utterance'}} UtteranceEvent */
/** @typedef {import('../api/http-api.js').Overall & {type: 'result', duration: number, speech_seconds: number}} ResultEvent */
/** @typedef {Record<string, string | number | boolean>} StreamOptions options of a stream, as names and values of the API */

/**
 * @typedef {object} Handlers
 * @property {(event: ReadyEvent) => void} ready
 * @property {(event: WindowEvent) => void} window
 * @property {(event: UtteranceEvent) => void} utterance
 * @property {(event: ResultEvent) => void} result
 * @property {(problem: Problem | null) => void} closed called once, with null if the stream ended with the result
 */

/** One stream, from the start message to the result. */
export class LiveStream {
  /**
   * @param {StreamOptions} options
   * @param {Handlers} on
   */
  constructor(options, on) {
    const url = new URL('stream', BASE);
    url.protocol = url.protocol.replace('http', 'ws');
    this.on = on;
    this.opened = false;
    this.ready = false;
    this.finished = false;
    this.closed = false;
    /** @type {Problem | null} */
    this.problem = null;
    this.socket = new WebSocket(url, keyProtocols());
    this.socket.addEventListener('open', () => {
      this.opened = true;
      this.socket.send(JSON.stringify({ type: 'start', ...options }));
    });
    this.socket.addEventListener('message', ({ data }) => this.#handle(JSON.parse(data)));
    this.socket.addEventListener('close', () => this.#close());
  }

  /**
   * Send samples. Before the service is ready, they are discarded.
   *
   * @param {Int16Array<ArrayBuffer>} samples
   * @returns {boolean} whether they were sent
   */
  send(samples) {
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) {
      return false;
    }
    if (this.socket.bufferedAmount > MAX_BUFFERED_BYTES) {
      this.#fail('connection_slow');
      return false;
    }
    this.socket.send(samples);
    return true;
  }

  /** Tell the service that the audio is complete; it answers with the result. */
  end() {
    if (this.socket.readyState === WebSocket.OPEN && this.ready) {
      this.socket.send(JSON.stringify({ type: 'end' }));
    } else {
      this.#fail('stream_lost');
    }
  }

  /** Close without waiting for anything. */
  cancel() {
    this.#fail('cancelled');
  }

  /**
   * Close the stream and report it as closed at once: until the socket is closed, audio waiting on a slow connection may
   * take minutes, during which the microphone would stay on.
   *
   * @param {string} code
   */
  #fail(code) {
    this.problem ??= new Problem(code);
    this.socket.close();
    this.#close();
  }

  /** @param {Record<string, any>} event */
  #handle(event) {
    if (this.closed) {
      return;
    }
    if (event.type === 'problem') {
      this.problem = new Problem(event.code, event);
    } else if (event.type === 'ready') {
      this.ready = true;
      this.on.ready(/** @type {any} */ (event));
    } else if (event.type === 'window') {
      this.on.window(/** @type {any} */ (event));
    } else if (event.type === 'utterance') {
      this.on.utterance(/** @type {any} */ (event));
    } else if (event.type === 'result') {
      this.finished = true;
      this.on.result(/** @type {any} */ (event));
    }
  }

  async #close() {
    if (this.closed) {
      return;
    }
    this.closed = true;
    if (!this.finished) {
      this.problem ??= this.opened ? new Problem('stream_lost') : await refusalReason();
    }
    this.on.closed(this.problem);
  }
}

/** Why the service refused a stream. Browsers hide the response from scripts, so an ordinary request is made. */
async function refusalReason() {
  try {
    await servedModel();
    return new Problem('stream_refused');
  } catch (error) {
    return /** @type {Problem} */ (error);
  }
}
