// The service's public HTTP API, and its answers.

import { AnswerLines } from './answer-lines.js';
import { keyHeaders } from './key.js';
import { Problem, readProblem } from './problem.js';

/** @typedef {{label: string, score: number}} LabelScore */
/** @typedef {number[] | number[][] | {dtype: 'float32', shape: number[], data: string}} Embedding */
/** @typedef {{start: number, hop: number, window: number, labels: string[], scores: number[][]}} Frames */
/** @typedef {{start: number, end: number}} Stretch */
/** @typedef {{id: string, revision: string, backend: string, device: string, dtype: string, demonstration: boolean}} Model */
/** Without speech, label and score are null and there are no scores. */
/** @typedef {{label: string | null, score: number | null, scores: LabelScore[], embedding?: Embedding}} Overall */
/** @typedef {{start: number, end: number, channel?: number, label: string, score: number, scores: LabelScore[], embedding?: Embedding}} Segment */
/** @typedef {Overall & {frames?: Frames, segments?: Segment[]}} Result */
/** @typedef {Result & {channel: number, speech?: Stretch | null, speech_seconds?: number}} ChannelResult */
/** @typedef {{duration: number, sampling_rate: number, channels: number, narrow_band?: boolean, speech?: Stretch | null, speech_seconds?: number}} Audio */
/** @typedef {{id: string, model: Model, audio: Audio, channels?: ChannelResult[]} & Partial<Result>} Answer */
/** @typedef {{state: 'receiving' | 'decoding' | 'queued' | 'running' | 'unknown', ahead?: {clips: number, audio_seconds: number, wait: number | null}}} RequestState */
/** @typedef {{decode: number, queue: number, preprocess: number, inference: number}} Timings milliseconds */
/** @typedef {{answer: Answer, text: string, timings: Timings | null, cached: boolean}} Answered */
/** @typedef {[string, string][]} Options names and values, as the API has them */

/** The media type of answers that come line by line. */
export const LINES = 'application/x-ndjson';

/** Where the API is: two folders above the files of the page, whatever a proxy puts before it. */
export const BASE = new URL('../../', import.meta.url);

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
 * @param {(segments: Segment[]) => void} request.onSegments called with all that have come, whenever some more have
 * @returns {Promise<Answered>}
 * @throws {Problem}
 */
export function recognize({ blob, name, options, id, anew, signal, onUpload, onSegments }) {
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
    const lines = inSegments(options) ? new AnswerLines(onSegments) : null;
    if (lines) {
      request.setRequestHeader('Accept', LINES);
      request.addEventListener('progress', () => request.status === 200 && lines.take(request.responseText));
    }
    const abort = () => request.abort();
    signal.addEventListener('abort', abort, { once: true });
    request.upload.addEventListener('progress', (event) => onUpload(event.total ? event.loaded / event.total : 0));
    request.upload.addEventListener('load', () => onUpload(1));
    request.addEventListener('loadend', () => signal.removeEventListener('abort', abort));
    request.addEventListener('abort', () => reject(new Problem('cancelled')));
    request.addEventListener('error', async () => {
      reject(new Problem((await isReadable(blob)) ? 'server_gone' : 'file_unreadable'));
    });
    request.addEventListener('load', () => {
      const header = (/** @type {string} */ name) => request.getResponseHeader(name);
      if (request.status === 200) {
        try {
          const answer = lines ? lines.finish(request.responseText) : JSON.parse(request.responseText);
          resolve({
            answer,
            text: lines ? JSON.stringify(answer) : request.responseText,
            timings: lines ? lines.timings : readTimings(header('Server-Timing')),
            cached: header('X-Cache') === 'hit',
          });
        } catch (error) {
          reject(error instanceof Problem ? error : new Problem('bad_answer', { status: 200 }));
        }
      } else {
        reject(readProblem(request.status, request.responseText, header('Retry-After')));
      }
    });
    request.send(form);
  });
}

/**
 * Whether these options ask for segments, which come as they are ready.
 *
 * @param {Options} options
 */
export function inSegments(options) {
  return options.some(([name, value]) => name === 'granularity' && value === 'segment');
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
 * Whether a file is still there to be read, and is one: a folder that is dropped looks like a file.
 *
 * @param {Blob} blob
 */
async function isReadable(blob) {
  try {
    await blob.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
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
