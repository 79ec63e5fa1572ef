// The scores at a position in the audio, as a list of numbers under the tracks.

import { find, make } from '../common/dom.js';
import { emojiElement, emotionElement } from '../common/emotion-scores.js';
import { emotionColour, emotionOf, scoresByEmotion, sortedByScore } from '../common/emotions.js';
import { clock, percent } from '../common/format.js';
import { setText } from '../i18n/language.js';
import { segmentAt } from './segment-lanes.js';
import { columns, scoresAt } from './timeline.js';

/** @typedef {{key: import('../i18n/language.js').Key, values: import('../i18n/language.js').Values}} Heading */
/** @typedef {{heading: Heading, scores: Map<string, number> | null, segment: import('../api/http-api.js').Segment | null}} PositionScores */
/** @typedef {{time: number, lane: number, tolerance?: number}} TrackPosition times in seconds */

/** Looks up scores over time. */
export class FrameScores {
  /**
   * @param {import('../api/http-api.js').Result} result
   * @param {import('../api/http-api.js').Frames} frames
   */
  constructor(result, frames) {
    this.overall = scoresByEmotion(result.scores);
    this.frames = frames;
    this.columns = columns(frames);
    this.emotions = this.columns.map(({ emotion }) => emotion);
  }

  /**
   * @param {TrackPosition | null} position null for the whole clip
   * @returns {PositionScores}
   */
  at(position) {
    if (!position) {
      return { heading: { key: 'timeline.mean', values: {} }, scores: this.overall, segment: null };
    }
    const row = scoresAt(this.frames, position.time);
    return {
      heading: { key: 'timeline.at', values: { time: position.time.toFixed(2) } },
      scores: row && new Map(this.columns.map(({ emotion, index }) => [emotion, row[index]])),
      segment: null,
    };
  }
}

/** Looks up the scores of segments. */
export class SegmentScores {
  /**
   * @param {import('../api/http-api.js').LabelScore[]} overall scores of the selected channel, empty without speech
   * @param {import('./segment-lanes.js').Lane[]} lanes
   */
  constructor(overall, lanes) {
    this.lanes = lanes;
    this.overall = overall.length ? scoresByEmotion(overall) : null;
    const some = overall.length ? overall : (lanes.find(({ segments }) => segments.length)?.segments[0].scores ?? []);
    this.emotions = sortedByScore(some).map(({ label }) => emotionOf(label));
  }

  /**
   * @param {TrackPosition | null} position null for the whole recording
   * @returns {PositionScores}
   */
  at(position) {
    if (!position) {
      return { heading: { key: 'timeline.whole', values: {} }, scores: this.overall, segment: null };
    }
    const { channel, segments } = this.lanes[position.lane];
    const segment = segmentAt(segments, position.time, position.tolerance);
    if (!segment) {
      const values = { time: clock(position.time, 1) };
      return { heading: { key: 'timeline.at.clock', values }, scores: null, segment };
    }
    const values = { start: clock(segment.start, 1), end: clock(segment.end, 1) };
    /** @type {Heading} */
    const heading =
      channel === null
        ? { key: 'segments.between', values }
        : { key: 'segments.between.channel', values: { ...values, channel } };
    return { heading, scores: scoresByEmotion(segment.scores), segment };
  }
}

/**
 * Create the list, with a row for each emotion.
 *
 * @param {string[]} emotions
 */
export function createScoreList(emotions) {
  const items = emotions.map((emotion) => {
    const swatch = make('span', { class: 'swatch', 'aria-hidden': 'true' });
    swatch.style.setProperty('background', `var(${emotionColour(emotion)})`);
    const value = make('span', { class: 'value', 'data-emotion': emotion });
    return make('li', {}, swatch, emojiElement(emotion), emotionElement(emotion), value);
  });
  find('position-scores', HTMLElement).replaceChildren(...items);
}

/** @param {PositionScores} positionScores */
export function updateScoreList({ heading, scores }) {
  setText(find('position-scores-heading', HTMLElement), heading.key, heading.values);
  for (const value of find('position-scores', HTMLElement).querySelectorAll('[data-emotion]')) {
    const score = scores?.get(value.getAttribute('data-emotion') ?? '');
    value.textContent = score === undefined ? '–' : percent(score);
  }
}

/**
 * The strongest emotion at a position, as values of a message.
 *
 * @param {PositionScores} positionScores
 */
export function strongestOf({ scores }) {
  if (!scores) {
    return null;
  }
  const [emotion, score] = [...scores].reduce((one, other) => (other[1] > one[1] ? other : one));
  return { emotion: { emotion }, score: percent(score) };
}
