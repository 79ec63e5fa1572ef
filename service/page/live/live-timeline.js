// The windows of a live stream as stacked scores over time, and the utterances below them.

import { EMOJI_FONT, prepareCanvas } from '../common/canvas.js';
import { emoji, emotionColour, emotionOf } from '../common/emotions.js';
import { clock } from '../common/format.js';
import { onThemeChange, themeColour } from '../common/theme.js';

/** Seconds that are visible while the stream runs. */
const VIEW = 60;
/** Heights in pixels. */
const AXIS = 20;
const UTTERANCES = 30;
const GAP = 6;
/** Seconds between ticks of the axis; the smallest step with enough room for labels is used. */
const STEPS = [1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600];

/** Draws the results of a live stream. */
export class LiveTimeline {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    /** @type {import('./live-results.js').LiveResults | null} */
    this.results = null;
    this.elapsed = 0;
    this.whole = false;
    onThemeChange(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /**
   * @param {import('./live-results.js').LiveResults | null} results
   * @param {number} elapsed seconds
   * @param {boolean} whole whether to show everything, or the last minute
   */
  show(results, elapsed, whole) {
    Object.assign(this, { results, elapsed, whole });
    this.draw();
  }

  /** The visible time span in seconds. */
  get span() {
    const end = Math.max(this.elapsed, this.whole ? 1 : VIEW);
    return { from: this.whole ? 0 : end - VIEW, to: end };
  }

  /**
   * @param {number} share of the width
   * @returns {number} seconds
   */
  timeAt(share) {
    const { from, to } = this.span;
    return from + share * (to - from);
  }

  draw() {
    const area = prepareCanvas(this.canvas);
    if (!area) {
      return;
    }
    const { context, width, height } = area;
    const { from, to } = this.span;
    const x = (/** @type {number} */ time) => ((time - from) / (to - from)) * width;
    const scores = height - AXIS - UTTERANCES - GAP;
    context.fillStyle = themeColour('--raised');
    context.fillRect(0, 0, width, scores);
    context.fillRect(0, scores + GAP, width, UTTERANCES);
    if (this.results) {
      drawWindows(context, this.results, x, scores, from);
      drawUtterances(context, this.results, x, scores + GAP);
    }
    drawAxis(context, { from, to, x, width, top: scores + GAP + UTTERANCES });
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import('./live-results.js').LiveResults} results
 * @param {(time: number) => number} x
 * @param {number} height
 * @param {number} from seconds
 */
function drawWindows(context, { windows, emotions, hop }, x, height, from) {
  const colours = emotions.map((emotion) => themeColour(emotionColour(emotion)));
  for (let index = windows.findLastIndex(({ end }) => end < from) + 1; index < windows.length; index++) {
    const { start, end, scores } = windows[index];
    // A column covers the new part of its window; skipped windows leave a gap.
    const left = x(index ? Math.max(windows[index - 1].end, end - hop) : start);
    let top = height;
    for (const [row, score] of scores.entries()) {
      context.fillStyle = colours[row];
      context.fillRect(left, top - score * height, Math.max(1, x(end) - left - 0.5), score * height);
      top -= score * height;
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import('./live-results.js').LiveResults} results
 * @param {(time: number) => number} x
 * @param {number} top
 */
function drawUtterances(context, { utterances }, x, top) {
  for (const { start, end, label } of utterances) {
    const emotion = emotionOf(label);
    const left = x(start);
    const size = Math.max(2, x(end) - left - 1);
    if (left + size < 0) {
      continue;
    }
    context.fillStyle = themeColour(emotionColour(emotion));
    context.globalAlpha = size > 20 ? 0.5 : 1;
    context.beginPath();
    context.roundRect(left, top, size, UTTERANCES, 4);
    context.fill();
    context.globalAlpha = 1;
    if (size > 20) {
      context.fillStyle = themeColour('--text');
      context.font = `15px ${EMOJI_FONT}`;
      context.fillText(emoji(emotion), left + 3, top + 21);
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{from: number, to: number, x: (time: number) => number, width: number, top: number}} area
 */
function drawAxis(context, { from, to, x, width, top }) {
  const step = STEPS.find((seconds) => (seconds / (to - from)) * width >= 56) ?? 3600;
  context.font = '11px system-ui, sans-serif';
  context.fillStyle = themeColour('--muted');
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    const label = clock(time);
    const at = x(time) - context.measureText(label).width / 2;
    context.fillText(label, Math.min(Math.max(at, 0), width - context.measureText(label).width), top + 15);
  }
}
