// Scores over time as a chart, on the time axis of the waveform above it.

import { colourOf, emotionOf } from './emotions.js';
import { themeColour } from './theme.js';

/** Loaded only where there is something to draw. */
const LIBRARY = './vendor/uplot/uPlot.esm.js';

/** @typedef {{emotion: string, index: number, mean: number}} Column */

/**
 * The row of scores at a moment, null where none was scored.
 *
 * @param {import('./api.js').Frames} frames
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
 * The columns of the scores, those that are highest on the whole first.
 *
 * @param {import('./api.js').Frames} frames
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

/** The chart. */
export class Timeline {
  /**
   * @param {HTMLElement} place
   * @param {import('./api.js').Frames} frames
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
    this.gone = false;
  }

  /** Draw it, for the first time or anew: in other colours, or in the other way. */
  async draw() {
    const { default: UPlot } = /** @type {{default: typeof import('uplot')}} */ (await import(LIBRARY));
    if (this.gone) {
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
        cursor: { show: false }, // the line that follows the pointer spans the waveform as well
        hooks: { draw: [(plot) => drawGrid(plot, this.stacked ? '--grid' : '--line')] },
      },
      [times(this.frames), ...from.values],
      this.place,
    );
  }

  /**
   * The same chart on a canvas of another size.
   *
   * @param {number} width
   * @param {number} height
   * @returns {Promise<HTMLCanvasElement>}
   */
  async picture(width, height) {
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
    const other = new Timeline(place, this.frames, this.duration);
    other.stacked = this.stacked;
    await other.draw();
    await new Promise(requestAnimationFrame); // the library draws a moment later
    const canvas = /** @type {import('uplot')} */ (other.plot).ctx.canvas;
    other.destroy();
    place.remove();
    return canvas;
  }

  resize() {
    this.plot?.setSize({ width: this.place.clientWidth, height: this.place.clientHeight });
  }

  destroy() {
    this.gone = true;
    this.plot?.destroy();
    this.plot = null;
  }

  /** @param {string} emotion */
  #series(emotion) {
    const colour = themeColour(colourOf(emotion));
    return this.stacked
      ? { fill: colour, stroke: themeColour('--card'), width: 1, points: { show: false } }
      : { stroke: colour, width: 2, points: { show: false } };
  }
}

/**
 * The middle of each window, and both ends, so that the drawing covers what was scored.
 *
 * @param {import('./api.js').Frames} frames
 */
function times({ start, hop, window, scores }) {
  const middles = scores.map((_, row) => start + row * hop + window / 2);
  return [start, ...middles, start + (scores.length - 1) * hop + window];
}

/**
 * @param {import('./api.js').Frames} frames
 * @param {Column[]} order
 */
function lines(frames, order) {
  const rows = withEnds(frames.scores);
  return { emotions: order.map(({ emotion }) => emotion), values: order.map(({ index }) => rows.map((r) => r[index])) };
}

/**
 * Each column on top of those before it; the topmost first, because each is painted down to the ground.
 *
 * @param {import('./api.js').Frames} frames
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
