// An answer that comes line by line, each a JSON document, put together to the answer that comes as one.

import { Problem } from './problem.js';

/** @typedef {import('./api.js').Segment} Segment */
/** @typedef {import('./api.js').Answer} Answer */

/** Reads the lines of one answer. */
export class AnswerLines {
  /** @param {(segments: Segment[]) => void} onSegments called with all that have come, whenever some more have */
  constructor(onSegments) {
    this.onSegments = onSegments;
    /** @type {Segment[]} */
    this.segments = [];
    /** How much of the text is read. */
    this.read = 0;
    /** @type {Answer | null} what the first line says */
    this.start = null;
    /** @type {Omit<Answer, 'id' | 'model'> | null} what the last line says */
    this.result = null;
    /** @type {import('./api.js').Timings | null} */
    this.timings = null;
    /** @type {Problem | null} what it says where something went wrong */
    this.problem = null;
  }

  /**
   * Read the lines that are complete.
   *
   * @param {string} text all that has come so far
   */
  take(text) {
    const before = this.segments.length;
    for (let end = text.indexOf('\n', this.read); end >= 0; end = text.indexOf('\n', this.read)) {
      const line = text.slice(this.read, end);
      this.read = end + 1;
      if (line.trim()) {
        this.#takeLine(line);
      }
    }
    if (this.segments.length > before) {
      this.onSegments(this.segments);
    }
  }

  /**
   * @param {string} text everything
   * @returns {Answer}
   * @throws {Problem}
   */
  finish(text) {
    this.take(text);
    const { start, result, problem } = this;
    if (!start || !result) {
      throw problem ?? new Problem('answer_cut');
    }
    const { id, model } = start;
    const { channels, ...rest } = result;
    if (!channels) {
      return { id, model, ...rest, segments: this.segments };
    }
    const filled = channels.map((each) => ({
      ...each,
      segments: this.segments.filter(({ channel }) => channel === each.channel),
    }));
    return { id, model, ...rest, channels: filled };
  }

  /** @param {string} line */
  #takeLine(line) {
    let content;
    try {
      content = JSON.parse(line);
    } catch {
      this.problem = new Problem('bad_answer', { status: 200 });
      return;
    }
    const { type, ...rest } = content;
    if (type === 'start') {
      this.start = rest;
    } else if (type === 'segment') {
      this.segments.push(rest);
    } else if (type === 'result') {
      const { timings, ...result } = rest;
      this.result = result;
      this.timings = inMilliseconds(timings);
    } else if (type === 'problem') {
      this.problem = new Problem(rest.code, rest);
    }
  }
}

/** @param {import('./api.js').Timings} seconds */
function inMilliseconds({ decode, queue, preprocess, inference }) {
  return { decode: 1000 * decode, queue: 1000 * queue, preprocess: 1000 * preprocess, inference: 1000 * inference };
}
