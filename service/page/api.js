// The service's public HTTP API, and its answers.

import { keyHeaders } from './key.js';

/** @typedef {{label: string, score: number}} LabelScore */
/** @typedef {number[] | number[][] | {dtype: 'float32', shape: number[], data: string}} Embedding */
/** @typedef {{start: number, hop: number, window: number, labels: string[], scores: number[][]}} Frames */
/** @typedef {{start: number, end: number}} Stretch */
/** @typedef {{id: string, revision: string, backend: string, device: string, dtype: string, demonstration: boolean}} Model */
/** @typedef {{label: string, score: number, scores: LabelScore[], embedding?: Embedding, frames?: Frames}} Result */
/** @typedef {Result & {channel: number, speech: Stretch | null}} ChannelResult */
/** @typedef {{duration: number, sampling_rate: number, channels: number, speech?: Stretch | null}} Audio */
/** @typedef {{id: string, model: Model, audio: Audio, channels?: ChannelResult[]} & Partial<Result>} Answer */
/** @typedef {{state: 'receiving' | 'decoding' | 'queued' | 'running' | 'unknown', ahead?: {clips: number, audio_seconds: number, wait: number | null}}} RequestState */
/** @typedef {{decode: number, queue: number, preprocess: number, inference: number}} Timings milliseconds */
/** @typedef {{answer: Answer, text: string, timings: Timings | null, cached: boolean}} Answered */
/** @typedef {[string, string][]} Options names and values, as the API has them */

/** Where the API is: two folders above the files of the page, whatever a proxy puts before it. */
export const BASE = new URL('../../', import.meta.url);

/** Something that went wrong, as a problem document says it, or `server_gone`, `bad_answer`, `cancelled`. */
export class Problem extends Error {
  /**
   * @param {string} code
   * @param {{status?: number, title?: string, detail?: string, retryAfter?: number | null, errors?: {field: string, message: string}[]}} [facts]
   */
  constructor(code, { status = 0, title = '', detail = '', retryAfter = null, errors = [] } = {}) {
    super(code);
    this.code = code;
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.retryAfter = retryAfter;
    this.errors = errors;
  }
}

/** An id that nobody guesses, also where the page is not in a secure context. */
export function newRequestId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * Send one file to be recognised.
 *
 * @param {object} request
 * @param {Blob} request.blob
 * @param {string} request.name of the file
 * @param {Options} request.options
 * @param {string} request.id
 * @param {boolean} request.anew do not take the answer from a cache
 * @param {AbortSignal} request.signal aborting it closes the connection, on which the service gives up the work
 * @param {(share: number) => void} request.onUpload called with 0 to 1
 * @returns {Promise<Answered>}
 * @throws {Problem}
 */
export function recognize({ blob, name, options, id, anew, signal, onUpload }) {
  const form = new FormData();
  for (const [option, value] of options) {
    form.append(option, value);
  }
  form.append('file', blob, name);
  // fetch cannot tell how far an upload is.
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open('POST', new URL('recognize', BASE));
    request.setRequestHeader('X-Request-ID', id);
    if (anew) {
      request.setRequestHeader('Cache-Control', 'no-cache');
    }
    for (const [header, value] of Object.entries(keyHeaders())) {
      request.setRequestHeader(header, value);
    }
    const abort = () => request.abort();
    signal.addEventListener('abort', abort, { once: true });
    request.upload.addEventListener('progress', (event) => onUpload(event.total ? event.loaded / event.total : 0));
    request.upload.addEventListener('load', () => onUpload(1));
    request.addEventListener('loadend', () => signal.removeEventListener('abort', abort));
    request.addEventListener('abort', () => reject(new Problem('cancelled')));
    request.addEventListener('error', () => reject(new Problem('server_gone')));
    request.addEventListener('load', () => {
      const header = (/** @type {string} */ name) => request.getResponseHeader(name);
      if (request.status === 200) {
        try {
          resolve({
            answer: JSON.parse(request.responseText),
            text: request.responseText,
            timings: readTimings(header('Server-Timing')),
            cached: header('X-Cache') === 'hit',
          });
        } catch {
          reject(new Problem('bad_answer', { status: 200 }));
        }
      } else {
        reject(readProblem(request.status, request.responseText, header('Retry-After')));
      }
    });
    request.send(form);
  });
}

/**
 * Where a request is that waits for its answer; `unknown` also where nobody can say.
 *
 * @param {string} id
 * @param {AbortSignal} signal
 * @returns {Promise<RequestState>}
 */
export async function requestState(id, signal) {
  try {
    const response = await fetch(new URL(`requests/${id}`, BASE), { headers: keyHeaders(), signal });
    return response.ok ? await response.json() : { state: 'unknown' };
  } catch {
    return { state: 'unknown' };
  }
}

/**
 * The model that answers.
 *
 * @returns {Promise<Model & {labels: import('./emotions.js').Label[], embedding_size: number}>}
 * @throws {Problem}
 */
export async function servedModel() {
  let response;
  let text;
  try {
    response = await fetch(new URL('models', BASE), { headers: keyHeaders() });
    text = await response.text();
  } catch {
    throw new Problem('server_gone');
  }
  if (!response.ok) {
    throw readProblem(response.status, text, response.headers.get('Retry-After'));
  }
  return JSON.parse(text).models[0];
}

/**
 * @param {number} status
 * @param {string} text of the body
 * @param {string | null} retryAfter
 */
function readProblem(status, text, retryAfter) {
  const seconds = retryAfter === null ? null : Number.parseFloat(retryAfter);
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    // a proxy's own page
  }
  const facts = { status, retryAfter: Number.isNaN(seconds) ? null : seconds };
  return typeof document?.code === 'string'
    ? new Problem(document.code, { ...document, ...facts })
    : new Problem('bad_answer', facts);
}

/**
 * @param {string | null} header `Server-Timing`
 * @returns {Timings | null}
 */
function readTimings(header) {
  /** @type {Record<string, number>} */
  const found = {};
  for (const [, stage, milliseconds] of (header ?? '').matchAll(/(\w+);dur=([\d.]+)/g)) {
    found[stage] = Number.parseFloat(milliseconds);
  }
  const { decode, queue, preprocess, inference } = found;
  return inference === undefined ? null : { decode, queue, preprocess, inference };
}
