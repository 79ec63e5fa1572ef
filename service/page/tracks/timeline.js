// Scores over time as a chart with the same time axis as the waveform above it.

import { emotionColour, emotionOf } from '../common/emotions.js';
import { themeColour } from '../common/theme.js';

/** Loaded when the first chart is drawn. */
const UPLOT = '../vendor/uplot/uPlot.esm.js';

/** @typedef {{emotion: string, index: number, mean: number}} Column index in a row of scores, mean over all rows */

/**
 * The row of scores at a time, null outside the scored part.
 *
 * @param {import('../api/http-api.js').Frames} frames
 * @param {number} time seconds
 * @returns {number[] | null}
 */
export function scoresAt(frames, time) {
  const { start, hop, window, scores } = frames;
  if (!scores.length || time < start || time > start + (scores.length - 1) * hop + window) {
    return null;
  }
  const row = Math.round((time - start - window / 2) / hop);
  return scores[Math.min(Math.max(row, 0), scores.length - 1)];
}

/**
 * The columns of the scores, the highest mean first.
 *
 * @param {import('../api/http-api.js').Frames} frames
 * @returns {Column[]}
 */
export function columns(frames) {
  return frames.labels
    .map((label, index) => ({
      emotion: emotionOf(label),
      index,
      mean: frames.scores.reduce((sum, row) => sum + row[index], 0) / Math.max(1, frames.scores.length),
    }))
    .sort((one, other) => other.mean - one.mean);
}

/** A chart of scores over time. */
export class Timeline {
  /**
   * @param {HTMLElement} place
   * @param {import('../api/http-api.js').Frames} frames
   * @param {number} duration seconds that the chart spans
   */
  constructor(place, frames, duration) {
    this.place = place;
    this.frames = frames;
    this.duration = duration;
    this.stacked = true;
    this.columns = columns(frames);
    /** @type {import('uplot') | null} */
    this.plot = null;
    this.destroyed = false;
  }

  /** Draw the chart, also again after `stacked` or the theme has changed. */
  async draw() {
    const { default: UPlot } = /** @type {{default: typeof import('uplot')}} */ (await import(UPLOT));
    if (this.destroyed) {
      return;
    }
    this.plot?.destroy();
    const from = this.stacked ? stack(this.frames, this.columns) : lines(this.frames, this.columns);
    this.plot = new UPlot(
      {
        width: this.place.clientWidth,
        height: this.place.clientHeight,
        padding: [6, 0, 0, 0],
        legend: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: false, range: [0, this.duration] }, y: { range: [0, 1] } },
        series: [{}, ...from.emotions.map((emotion) => this.#series(emotion))],
        cursor: { show: false }, // tracks.js draws the pointer line across all tracks
        hooks: { draw: [(plot) => drawGrid(plot, this.stacked ? '--grid' : '--line')] },
      },
      [times(this.frames), ...from.values],
      this.place,
    );
  }

  /**
   * Draw the same chart on a new canvas of another size, outside the visible page.
   *
   * @param {number} width
   * @param {number} height
   * @returns {Promise<HTMLCanvasElement>}
   */
  async drawCopy(width, height) {
    const place = document.createElement('div');
    for (const [property, value] of [
      ['position', 'fixed'],
      ['left', '200vw'],
      ['width', `${width}px`],
      ['height', `${height}px`],
    ]) {
      place.style.setProperty(property, value);
    }
    document.body.append(place);
    const copy = new Timeline(place, this.frames, this.duration);
    copy.stacked = this.stacked;
    await copy.draw();
    await new Promise(requestAnimationFrame); // uPlot draws asynchronously
    const canvas = /** @type {import('uplot')} */ (copy.plot).ctx.canvas;
    copy.destroy();
    place.remove();
    return canvas;
  }

  resize() {
    this.plot?.setSize({ width: this.place.clientWidth, height: this.place.clientHeight });
  }

  destroy() {
    this.destroyed = true;
    this.plot?.destroy();
    this.plot = null;
  }

  /** @param {string} emotion */
  #series(emotion) {
    const colour = themeColour(emotionColour(emotion));
    return this.stacked
      ? { fill: colour, stroke: themeColour('--card'), width: 1, points: { show: false } }
      : { stroke: colour, width: 2, points: { show: false } };
  }
}

/**
 * The middle of each window, and both ends of the scored part, so that the chart covers it.
 *
 * @param {import('../api/http-api.js').Frames} frames
 */
function times({ start, hop, window, scores }) {
  const middles = scores.map((_, row) => start + row * hop + window / 2);
  return [start, ...middles, start + (scores.length - 1) * hop + window];
}

/**
 * @param {import('../api/http-api.js').Frames} frames
 * @param {Column[]} order
 */
function lines(frames, order) {
  const rows = withEnds(frames.scores);
  return { emotions: order.map(({ emotion }) => emotion), values: order.map(({ index }) => rows.map((r) => r[index])) };
}

/**
 * Cumulative columns, the highest first: each is filled down to zero, and the next is drawn over it.
 *
 * @param {import('../api/http-api.js').Frames} frames
 * @param {Column[]} order
 */
function stack(frames, order) {
  const rows = withEnds(frames.scores);
  let below = rows.map(() => 0);
  const layers = order.map(({ emotion, index }) => {
    below = rows.map((row, at) => below[at] + row[index]);
    return { emotion, values: below };
  });
  layers.reverse();
  return { emotions: layers.map(({ emotion }) => emotion), values: layers.map(({ values }) => values) };
}

/** @param {number[][]} rows */
function withEnds(rows) {
  return [rows[0], ...rows, rows[rows.length - 1]];
}

/**
 * @param {import('uplot')} plot
 * @param {string} colour
 */
function drawGrid(plot, colour) {
  const { ctx: context, bbox } = plot;
  context.save();
  for (const share of [0.25, 0.5, 0.75]) {
    const at = Math.round(plot.valToPos(share, 'y', true)) + 0.5;
    context.strokeStyle = themeColour(colour);
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(bbox.left, at);
    context.lineTo(bbox.left + bbox.width, at);
    context.stroke();
  }
  context.restore();
}
