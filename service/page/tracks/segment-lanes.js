// The segments of a recording on its time axis: a lane for each channel, a block for each segment in the colour of its emotion.

import { EMOJI_FONT, prepareCanvas, TEXT_FONT } from '../common/canvas.js';
import { emoji, emotionColour, emotionName, emotionOf } from '../common/emotions.js';
import { themeColour } from '../common/theme.js';
import { language, message } from '../i18n/language.js';

/** Height of a lane and of the gap above it; all sizes are in CSS pixels. */
const HEIGHT = 40;
const GAP = 6;
/** Height of a channel's name, which is above its lane. */
const NAME_HEIGHT = 17;
/** Width from which on a block shows the emoji. */
const EMOJI_WIDTH = 24;
const NAME_STYLE = `12px ${TEXT_FONT}`;
const EMOJI_STYLE = `15px ${EMOJI_FONT}`;

/** @typedef {import('../api/http-api.js').Segment} Segment */
/** @typedef {{channel: number | null, segments: Segment[]}} Lane channel is null where channels were mixed */

/**
 * The lanes of an answer.
 *
 * @param {import('../api/http-api.js').Answer} answer
 * @returns {Lane[] | null} null if segments were not asked for
 */
export function lanesOf({ channels, segments }) {
  if (channels?.[0]?.segments) {
    return channels.map((each) => ({ channel: each.channel, segments: each.segments ?? [] }));
  }
  return segments ? [{ channel: null, segments }] : null;
}

/**
 * The lanes of the segments received so far.
 *
 * @param {Segment[]} segments
 * @returns {Lane[]}
 */
export function groupByChannel(segments) {
  const channels = [...new Set(segments.map(({ channel }) => channel ?? null))];
  channels.sort((one, other) => Number(one) - Number(other));
  return channels.map((channel) => ({
    channel,
    segments: segments.filter((segment) => (segment.channel ?? null) === channel),
  }));
}

/**
 * All segments of some lanes in the order of time.
 *
 * @param {Lane[]} lanes
 */
export function segmentsInOrder(lanes) {
  return lanes.flatMap(({ segments }) => segments).toSorted((one, other) => one.end - other.end);
}

/**
 * The segment at a time.
 *
 * @param {Segment[]} segments of a lane
 * @param {number} time seconds
 * @param {number} [tolerance] seconds by which `time` may be outside the segment
 * @returns {Segment | null}
 */
export function segmentAt(segments, time, tolerance = 0) {
  const near = (/** @type {number} */ by) => segments.find(({ start, end }) => start - by <= time && time <= end + by);
  return near(0) ?? near(tolerance) ?? null;
}

/** Draws lanes on a canvas. */
export class SegmentLanes {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Lane[]} lanes
   * @param {number} duration seconds that the lanes span
   */
  constructor(canvas, lanes, duration) {
    this.canvas = canvas;
    this.lanes = lanes;
    this.duration = duration;
    /** @type {Segment | null} drawn highlighted */
    this.highlighted = null;
  }

  /** Pixels from the top of one lane to the top of the next. */
  get pitch() {
    return HEIGHT + GAP + (this.lanes[0]?.channel === null ? 0 : NAME_HEIGHT);
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
    const area = prepareCanvas(this.canvas);
    if (area) {
      this.paint(area.context, area.width);
    }
  }

  /**
   * Draw on any canvas.
   *
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   */
  paint(context, width) {
    for (const [number, { channel, segments }] of this.lanes.entries()) {
      let top = number * this.pitch + GAP;
      if (channel !== null) {
        context.font = NAME_STYLE;
        context.fillStyle = themeColour('--muted');
        context.fillText(message('result.channel', { channel }), 0, top + 11);
        top += NAME_HEIGHT;
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
   * @param {number} width of the lane
   */
  #paintSegment(context, segment, top, width) {
    const emotion = emotionOf(segment.label);
    const left = (segment.start / this.duration) * width;
    const size = Math.max(1.5, ((segment.end - segment.start) / this.duration) * width - 1);
    const highlighted = segment === this.highlighted;
    context.save();
    context.beginPath();
    context.roundRect(left, top, size, HEIGHT, Math.min(4, size / 2));
    context.clip();
    context.fillStyle = themeColour(emotionColour(emotion));
    // Text needs a light background; blocks too narrow for text get the full colour.
    context.globalAlpha = size < 8 ? 1 : highlighted ? 0.65 : 0.4;
    context.fillRect(left, top, size, HEIGHT);
    context.globalAlpha = 1;
    context.fillRect(left, top + HEIGHT - 5, size, 5);
    if (size >= EMOJI_WIDTH) {
      context.fillStyle = themeColour('--text');
      context.font = EMOJI_STYLE;
      context.fillText(emoji(emotion), left + 4, top + 23);
      const name = emotionName(emotion, language());
      context.font = NAME_STYLE;
      if (context.measureText(name).width < size - EMOJI_WIDTH - 6) {
        context.fillText(name, left + EMOJI_WIDTH + 2, top + 22);
      }
    }
    context.restore();
    if (highlighted) {
      context.strokeStyle = themeColour('--text');
      context.lineWidth = 2;
      context.strokeRect(left + 1, top + 1, Math.max(1, size - 2), HEIGHT - 2);
    }
  }
}
