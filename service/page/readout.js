// The scores at one moment, as numbers under the tracks.

import { find, make } from './dom.js';
import { colourOf, emoji, emotionOf } from './emotions.js';
import { clock, percent } from './format.js';
import { segmentAt } from './lanes.js';
import { setEmotion, setText } from './language.js';
import { columns, scoresAt } from './timeline.js';

/** @typedef {{key: import('./language.js').Key, values: import('./language.js').Values}} Heading */
/** @typedef {{heading: Heading, scores: Map<string, number> | null, segment: import('./api.js').Segment | null}} Reading */
/** @typedef {{time: number, lane: number, slack?: number}} Moment */

/** Reads scores over time. */
export class FrameReadings {
  /**
   * @param {import('./api.js').Result} result
   * @param {import('./api.js').Frames} frames
   */
  constructor(result, frames) {
    this.whole = scoreMap(result.scores);
    this.frames = frames;
    this.columns = columns(frames);
    this.emotions = this.columns.map(({ emotion }) => emotion);
  }

  /**
   * @param {Moment | null} moment null for the whole clip
   * @returns {Reading}
   */
  at(moment) {
    if (!moment) {
      return { heading: { key: 'timeline.mean', values: {} }, scores: this.whole, segment: null };
    }
    const row = scoresAt(this.frames, moment.time);
    return {
      heading: { key: 'timeline.at', values: { time: moment.time.toFixed(2) } },
      scores: row && new Map(this.columns.map(({ emotion, index }) => [emotion, row[index]])),
      segment: null,
    };
  }
}

/** Reads segments. */
export class SegmentReadings {
  /**
   * @param {import('./api.js').LabelScore[]} overall scores of the channel on show, none without speech
   * @param {import('./lanes.js').Lane[]} lanes
   */
  constructor(overall, lanes) {
    this.lanes = lanes;
    this.whole = overall.length ? scoreMap(overall) : null;
    const some = overall.length ? overall : (lanes.find(({ segments }) => segments.length)?.segments[0].scores ?? []);
    this.emotions = some.toSorted((one, other) => other.score - one.score).map(({ label }) => emotionOf(label));
  }

  /**
   * @param {Moment | null} moment null for the whole recording
   * @returns {Reading}
   */
  at(moment) {
    if (!moment) {
      return { heading: { key: 'timeline.whole', values: {} }, scores: this.whole, segment: null };
    }
    const segment = segmentAt(this.lanes[moment.lane], moment.time, moment.slack);
    if (!segment) {
      const values = { time: clock(moment.time, 1) };
      return { heading: { key: 'timeline.at.clock', values }, scores: null, segment };
    }
    const values = { start: clock(segment.start, 1), end: clock(segment.end, 1) };
    const { channel } = this.lanes[moment.lane];
    /** @type {Heading} */
    const heading =
      channel === null
        ? { key: 'segments.between', values }
        : { key: 'segments.between.channel', values: { ...values, channel } };
    return { heading, scores: scoreMap(segment.scores), segment };
  }
}

/**
 * Make a row for each emotion.
 *
 * @param {string[]} emotions
 */
export function makeReadout(emotions) {
  const items = emotions.map((emotion) => {
    const name = make('span');
    setEmotion(name, emotion);
    const swatch = make('span', { class: 'swatch', 'aria-hidden': 'true' });
    swatch.style.setProperty('background', `var(${colourOf(emotion)})`);
    const face = make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotion));
    return make('li', {}, swatch, face, name, make('span', { class: 'value', 'data-emotion': emotion }));
  });
  find('readout', HTMLElement).replaceChildren(...items);
}

/** @param {Reading} reading */
export function writeReadout({ heading, scores }) {
  setText(find('readout-heading', HTMLElement), heading.key, heading.values);
  for (const value of find('readout', HTMLElement).querySelectorAll('[data-emotion]')) {
    const score = scores?.get(value.getAttribute('data-emotion') ?? '');
    value.textContent = score === undefined ? '–' : percent(score);
  }
}

/**
 * The strongest emotion in a reading, as values of a message.
 *
 * @param {Reading} reading
 */
export function strongestIn({ scores }) {
  if (!scores) {
    return null;
  }
  const [emotion, score] = [...scores].reduce((one, other) => (other[1] > one[1] ? other : one));
  return { emotion: { emotion }, score: percent(score) };
}

/** @param {import('./api.js').LabelScore[]} scores */
function scoreMap(scores) {
  return new Map(scores.map(({ label, score }) => [emotionOf(label), score]));
}
