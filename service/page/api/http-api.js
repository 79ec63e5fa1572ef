// The HTTP API of the service: requests, and the types of its answers.

import { AnswerLines } from './answer-lines.js';
import { keyHeaders } from './api-key.js';
import { Problem, readProblem } from './problem.js';

/** @typedef {{label: string, score: number}} LabelScore */
/** @typedef {number[] | number[][] | {dtype: 'float32', shape: number[], data: string}} Embedding */
/** @typedef {{start: number, hop: number, window: number, labels: string[], scores: number[][]}} Frames */
/** @typedef {{start: number, end: number}} Interval */
/** @typedef {{id: string, revision: string, backend: string, device: string, dtype: string, demonstration: boolean}} Model */
/** @typedef {{label: string | null, score: number | null, scores: LabelScore[], embedding?: Embedding}} Overall without speech, label and score are null and scores is empty */
/** @typedef {{start: number, end: number, channel?: number, label: string, score: number, scores: LabelScore[], embedding?: Embedding}} Segment */
/** @typedef {Overall & {frames?: Frames, segments?: Segment[]}} Result */
/** @typedef {Result & {channel: number, speech?: Interval | null, speech_seconds?: number}} ChannelResult */
/** @typedef {{duration: number, sampling_rate: number, channels: number, narrow_band?: boolean, truncated?: boolean, unread_bytes?: number, taken_channel?: number, speech?: Interval | null, speech_seconds?: number}} Audio */
/** @typedef {{id: string, model: Model, audio: Audio, channels?: ChannelResult[]} & Partial<Result>} Answer */
/** @typedef {{state: 'receiving' | 'decoding' | 'queued' | 'running' | 'unknown', ahead?: {clips: number, audio_seconds: number, wait: number | null}}} RequestState */
/** @typedef {{decode: number, queue: number, preprocess: number, inference: number}} Timings milliseconds */
/** @typedef {{answer: Answer, text: string, timings: Timings | null, cached: boolean}} Answered */
/** @typedef {[string, string][]} Options names and values, as the API has them */

/** Media type of answers that arrive as JSON lines. */
export const NDJSON = 'application/x-ndjson';

/** The address of the API: this module is in `page/VERSION/api/` below it, under whatever path a proxy serves it. */
export const BASE = new URL('../../../', import.meta.url);

/** A random id; `crypto.randomUUID` would need a secure context. */
export function newRequestId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * Send one file for recognition.
 *
 * @param {object} request
 * @param {Blob} request.blob
 * @param {string} request.name of the file
 * @param {Options} request.options
 * @param {string} request.id
 * @param {boolean} request.bypassCache whether to compute the answer even if it is cached
 * @param {AbortSignal} request.signal closes the connection; the service then cancels the request
 * @param {(share: number) => void} request.onUpload called with the uploaded share, 0 to 1
 * @param {(segments: Segment[]) => void} request.onSegments called with all segments received so far, whenever some were added
 * @returns {Promise<Answered>}
 * @throws {Problem}
 */
export function recognize({ blob, name, options, id, bypassCache, signal, onUpload, onSegments }) {
  const form = new FormData();
  for (const [option, value] of options) {
    form.append(option, value);
  }
  form.append('file', blob, name);
  // fetch reports no upload progress.
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open('POST', new URL('recognize', BASE));
    request.setRequestHeader('X-Request-ID', id);
    if (bypassCache) {
      request.setRequestHeader('Cache-Control', 'no-cache');
    }
    for (const [header, value] of Object.entries(keyHeaders())) {
      request.setRequestHeader(header, value);
    }
    const lines = asksForSegments(options) ? new AnswerLines(onSegments) : null;
    if (lines) {
      request.setRequestHeader('Accept', NDJSON);
      request.addEventListener('progress', () => request.status === 200 && lines.read(request.responseText));
    }
    const abort = () => request.abort();
    signal.addEventListener('abort', abort, { once: true });
    request.upload.addEventListener('progress', (event) => onUpload(event.total ? event.loaded / event.total : 0));
    request.upload.addEventListener('load', () => onUpload(1));
    request.addEventListener('loadend', () => signal.removeEventListener('abort', abort));
    request.addEventListener('abort', () => reject(new Problem('cancelled')));
    request.addEventListener('error', async () => {
      reject(new Problem((await isReadable(blob)) ? 'server_unreachable' : 'file_unreadable'));
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
 * Whether these options ask for segments, which arrive one by one as they are ready.
 *
 * @param {Options} options
 */
export function asksForSegments(options) {
  return options.some(([name, value]) => name === 'granularity' && value === 'segment');
}

/**
 * The state of a request that waits for its answer; `unknown` also if the service does not respond.
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
 * The served model.
 *
 * @returns {Promise<Model & {labels: import('../common/emotions.js').Label[], embedding_size: number}>}
 * @throws {Problem}
 */
export async function servedModel() {
  let response;
  let text;
  try {
    response = await fetch(new URL('models', BASE), { headers: keyHeaders() });
    text = await response.text();
  } catch {
    throw new Problem('server_unreachable');
  }
  if (!response.ok) {
    throw readProblem(response.status, text, response.headers.get('Retry-After'));
  }
  return JSON.parse(text).models[0];
}

/**
 * Whether a file can be read. It may have been moved, and a dropped folder looks like a file.
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
