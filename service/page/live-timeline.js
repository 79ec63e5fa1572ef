// The windows of a live stream as they come: stacked scores, and the utterances below them.

import { EMOJI, fit } from './canvas.js';
import { colourOf, emoji, emotionOf } from './emotions.js';
import { clock } from './format.js';
import { followTheme, themeColour } from './theme.js';

/** Seconds on show while it runs; afterwards, all. */
const VIEW = 60;
const AXIS = 20;
const UTTERANCES = 30;
const GAP = 6;
const STEPS = [1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600];

/** The drawing. */
export class LiveTimeline {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    /** @type {import('./live-record.js').LiveRecord | null} */
    this.record = null;
    this.elapsed = 0;
    this.whole = false;
    followTheme(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /**
   * @param {import('./live-record.js').LiveRecord | null} record
   * @param {number} elapsed seconds
   * @param {boolean} whole whether all is shown, or the last minute
   */
  show(record, elapsed, whole) {
    Object.assign(this, { record, elapsed, whole });
    this.draw();
  }

  /** First and last second on show. */
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
    const place = fit(this.canvas);
    if (!place) {
      return;
    }
    const { context, width, height } = place;
    const { from, to } = this.span;
    const x = (/** @type {number} */ time) => ((time - from) / (to - from)) * width;
    const scores = height - AXIS - UTTERANCES - GAP;
    context.fillStyle = themeColour('--raised');
    context.fillRect(0, 0, width, scores);
    context.fillRect(0, scores + GAP, width, UTTERANCES);
    if (this.record) {
      drawWindows(context, this.record, x, scores, from);
      drawUtterances(context, this.record, x, scores + GAP);
    }
    drawAxis(context, { from, to, x, width, top: scores + GAP + UTTERANCES });
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import('./live-record.js').LiveRecord} record
 * @param {(time: number) => number} x
 * @param {number} height
 * @param {number} from seconds
 */
function drawWindows(context, { windows, emotions, hop }, x, height, from) {
  const colours = emotions.map((emotion) => themeColour(colourOf(emotion)));
  for (let index = windows.findLastIndex(({ end }) => end < from) + 1; index < windows.length; index++) {
    const { start, end, scores } = windows[index];
    // Each stands for what is new in it; where windows were left out, there is a gap.
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
 * @param {import('./live-record.js').LiveRecord} record
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
    context.fillStyle = themeColour(colourOf(emotion));
    context.globalAlpha = size > 20 ? 0.5 : 1;
    context.beginPath();
    context.roundRect(left, top, size, UTTERANCES, 4);
    context.fill();
    context.globalAlpha = 1;
    if (size > 20) {
      context.fillStyle = themeColour('--text');
      context.font = `15px ${EMOJI}`;
      context.fillText(emoji(emotion), left + 3, top + 21);
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{from: number, to: number, x: (time: number) => number, width: number, top: number}} where
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
