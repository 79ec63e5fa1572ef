// Joins an answer of JSON lines (application/x-ndjson) into the document that an ordinary request returns.

import { Problem } from './problem.js';

/** @typedef {import('./http-api.js').Segment} Segment */
/** @typedef {import('./http-api.js').Answer} Answer */

/** Reads the lines of one answer. */
export class AnswerLines {
  /** @param {(segments: Segment[]) => void} onSegments called with all segments received so far, whenever some were added */
  constructor(onSegments) {
    this.onSegments = onSegments;
    /** @type {Segment[]} */
    this.segments = [];
    /** Number of characters parsed. */
    this.parsed = 0;
    /** @type {Answer | null} content of the first line */
    this.start = null;
    /** @type {Omit<Answer, 'id' | 'model'> | null} content of the last line */
    this.result = null;
    /** @type {import('./http-api.js').Timings | null} */
    this.timings = null;
    /** @type {Problem | null} content of a line of type `problem`, or a line that is no JSON */
    this.problem = null;
  }

  /**
   * Parse the complete lines that are new.
   *
   * @param {string} text everything received so far
   */
  read(text) {
    const before = this.segments.length;
    for (let end = text.indexOf('\n', this.parsed); end >= 0; end = text.indexOf('\n', this.parsed)) {
      const line = text.slice(this.parsed, end);
      this.parsed = end + 1;
      if (line.trim()) {
        this.#parseLine(line);
      }
    }
    if (this.segments.length > before) {
      this.onSegments(this.segments);
    }
  }

  /**
   * Join the lines to one answer.
   *
   * @param {string} text the whole response
   * @returns {Answer}
   * @throws {Problem}
   */
  finish(text) {
    this.read(text);
    const { start, result, problem } = this;
    if (!start || !result) {
      throw problem ?? new Problem('answer_incomplete');
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
  #parseLine(line) {
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

/** @param {import('./http-api.js').Timings} seconds */
function inMilliseconds({ decode, queue, preprocess, inference }) {
  return { decode: 1000 * decode, queue: 1000 * queue, preprocess: 1000 * preprocess, inference: 1000 * inference };
}
