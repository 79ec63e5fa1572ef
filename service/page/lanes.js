// The segments of a recording on its time axis: a lane for each channel, a block for each segment, in its emotion's colour.

import { EMOJI, fit } from './canvas.js';
import { colourOf, emoji, emotionName, emotionOf } from './emotions.js';
import { language, message } from './language.js';
import { themeColour } from './theme.js';

const HEIGHT = 40;
const GAP = 6;
/** Where channels are named, the name stands above the lane. */
const NAME = 17;
/** Pixels from which on a block has room for a face. */
const FACE = 24;
const FONT = '12px system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif';
const FACES = `15px ${EMOJI}`;

/** @typedef {import('./api.js').Segment} Segment */
/** @typedef {{channel: number | null, segments: Segment[]}} Lane of one channel, or of what all give together */

/**
 * The lanes of an answer.
 *
 * @param {import('./api.js').Answer} answer
 * @returns {Lane[] | null} null where segments were not asked for
 */
export function lanesOf({ channels, segments }) {
  if (channels?.[0]?.segments) {
    return channels.map((each) => ({ channel: each.channel, segments: each.segments ?? [] }));
  }
  return segments ? [{ channel: null, segments }] : null;
}

/**
 * The lanes of segments of which more are to come.
 *
 * @param {Segment[]} segments
 * @returns {Lane[]}
 */
export function lanesSoFar(segments) {
  const channels = [...new Set(segments.map(({ channel }) => channel ?? null))];
  channels.sort((one, other) => Number(one) - Number(other));
  return channels.map((channel) => ({
    channel,
    segments: segments.filter((segment) => (segment.channel ?? null) === channel),
  }));
}

/**
 * The segment at a moment.
 *
 * @param {Lane} lane
 * @param {number} time seconds
 * @param {number} [slack] seconds by which it may be missed
 * @returns {Segment | null}
 */
export function segmentAt({ segments }, time, slack = 0) {
  const near = (/** @type {number} */ by) => segments.find(({ start, end }) => start - by <= time && time <= end + by);
  return near(0) ?? near(slack) ?? null;
}

/** The drawing. */
export class Lanes {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Lane[]} lanes
   * @param {number} duration seconds that they span
   */
  constructor(canvas, lanes, duration) {
    this.canvas = canvas;
    this.lanes = lanes;
    this.duration = duration;
    /** @type {Segment | null} drawn so that it stands out */
    this.marked = null;
  }

  /** Pixels from the top of one lane to the top of the next. */
  get pitch() {
    return HEIGHT + GAP + (this.lanes[0]?.channel === null ? 0 : NAME);
  }

  get height() {
    return this.lanes.length * this.pitch;
  }

  /** @param {number} y pixels from the top */
  laneAt(y) {
    return Math.min(Math.max(Math.floor(y / this.pitch), 0), this.lanes.length - 1);
  }

  draw() {
    this.canvas.style.setProperty('height', `${this.height}px`);
    const place = fit(this.canvas);
    if (place) {
      this.paint(place.context, place.width);
    }
  }

  /**
   * Draw anywhere.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   */
  paint(context, width) {
    for (const [number, { channel, segments }] of this.lanes.entries()) {
      let top = number * this.pitch + GAP;
      if (channel !== null) {
        context.font = FONT;
        context.fillStyle = themeColour('--muted');
        context.fillText(message('result.channel', { channel }), 0, top + 11);
        top += NAME;
      }
      context.fillStyle = themeColour('--raised');
      context.beginPath();
      context.roundRect(0, top, width, HEIGHT, 6);
      context.fill();
      for (const segment of segments) {
        this.#paintSegment(context, segment, top, width);
      }
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Segment} segment
   * @param {number} top
   * @param {number} width of all
   */
  #paintSegment(context, segment, top, width) {
    const emotion = emotionOf(segment.label);
    const left = (segment.start / this.duration) * width;
    const size = Math.max(1.5, ((segment.end - segment.start) / this.duration) * width - 1);
    const marked = segment === this.marked;
    context.save();
    context.beginPath();
    context.roundRect(left, top, size, HEIGHT, Math.min(4, size / 2));
    context.clip();
    context.fillStyle = themeColour(colourOf(emotion));
    // Text is read on a tint; what is too narrow for text has the whole colour.
    context.globalAlpha = size < 8 ? 1 : marked ? 0.65 : 0.4;
    context.fillRect(left, top, size, HEIGHT);
    context.globalAlpha = 1;
    context.fillRect(left, top + HEIGHT - 5, size, 5);
    if (size >= FACE) {
      context.fillStyle = themeColour('--text');
      context.font = FACES;
      context.fillText(emoji(emotion), left + 4, top + 23);
      const name = emotionName(emotion, language());
      context.font = FONT;
      if (context.measureText(name).width < size - FACE - 6) {
        context.fillText(name, left + FACE + 2, top + 22);
      }
    }
    context.restore();
    if (marked) {
      context.strokeStyle = themeColour('--text');
      context.lineWidth = 2;
      context.strokeRect(left + 1, top + 1, Math.max(1, size - 2), HEIGHT - 2);
    }
  }
}
