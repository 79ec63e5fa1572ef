// The card that shows a live stream.

import { find, make } from '../common/dom.js';
import { EmotionBox, emojiElement, emotionElement, ScoreBars } from '../common/emotion-scores.js';
import { emotionOf } from '../common/emotions.js';
import { clock, durationText, percent } from '../common/format.js';
import { setText } from '../i18n/language.js';
import { showLevel } from '../input/microphone.js';
import { LiveTimeline } from './live-timeline.js';

/** Utterances in the list; the downloads have all. */
const MAX_LISTED = 100;
/** Milliseconds between announcements to screen readers. */
const ANNOUNCE_INTERVAL = 5000;
/** Parts that are hidden until the stream runs. */
const RESULT_PARTS = ['live-results', 'live-utterances-part', 'live-details'];
const NUMBERS = ['live-delay', 'live-count', 'live-skipped'];

/** @typedef {import('./live-results.js').LiveResults} LiveResults */

/** Shows one stream after the other. */
export class LiveCard {
  constructor() {
    this.element = find('live', HTMLElement);
    this.emotion = new EmotionBox(find('live-emotion', HTMLElement));
    this.bars = new ScoreBars(find('live-scores', HTMLElement));
    this.timeline = new LiveTimeline(find('live-timeline', HTMLCanvasElement));
    /** @type {LiveResults | null} */
    this.results = null;
    this.longestDelay = 0;
    this.announcedAt = Number.NEGATIVE_INFINITY;
    this.announced = '';
    const { canvas } = this.timeline;
    canvas.addEventListener('pointermove', ({ offsetX }) => {
      this.#showWindowAt(this.timeline.timeAt(offsetX / canvas.clientWidth));
    });
    canvas.addEventListener('pointerleave', () => this.#showWindowAt(null));
  }

  /** Empty the card. */
  clear() {
    this.results = null;
    this.longestDelay = 0;
    this.announced = '';
    this.announcedAt = Number.NEGATIVE_INFINITY;
    this.emotion.clear();
    for (const id of ['live-utterances', 'live-scores', 'live-announcement']) {
      find(id, HTMLElement).replaceChildren();
    }
    for (const id of NUMBERS) {
      find(id, HTMLElement).removeAttribute('data-text');
      find(id, HTMLElement).textContent = '–';
    }
    find('live-nothing', HTMLElement).hidden = false;
    this.showAudio(0, null);
    this.timeline.show(null, 0, false);
  }

  /** @param {import('./live-session.js').SessionState} state */
  setState(state) {
    const active = !['ended', 'failed'].includes(state);
    const [start, stop] = [find('live-start', HTMLButtonElement), find('live-stop', HTMLButtonElement)];
    const hadFocus = [start, stop, this.element, document.body].includes(/** @type {any} */ (document.activeElement));
    this.element.dataset.state = state;
    setText(find('live-state', HTMLElement), `live.state.${state}`);
    setText(find('live-emotion-heading', HTMLElement), state === 'ended' ? 'live.whole' : 'live.now');
    start.hidden = active;
    stop.hidden = !active;
    stop.disabled = state !== 'running';
    if (hadFocus) {
      const next = !active ? start : stop.disabled ? this.element : stop;
      next.focus({ preventScroll: true });
    }
    for (const id of RESULT_PARTS) {
      find(id, HTMLElement).hidden = this.results === null && state !== 'running' && state !== 'ending';
    }
    for (const id of ['live-window', 'live-hop']) {
      find(id, HTMLInputElement).disabled = active;
    }
    find('live-export', HTMLElement).hidden = active || !this.results?.windows.length;
    find('live-speech-part', HTMLElement).hidden = state !== 'ended';
    if (!active) {
      showLevel('live-level', null);
    }
  }

  /**
   * @param {number} elapsed seconds of audio sent
   * @param {number | null} power of the last chunk
   */
  showAudio(elapsed, power) {
    showLevel('live-level', power);
    find('live-time', HTMLElement).textContent = clock(elapsed, 1);
  }

  /** @param {(Node | string)[]} content of the notice at the top; without any, the notice is hidden */
  notify(...content) {
    const notice = find('live-notice', HTMLElement);
    notice.replaceChildren(...content);
    notice.hidden = content.length === 0;
  }

  /**
   * @param {import('./live-stream.js').WindowEvent} event already in the results
   * @param {LiveResults} results
   * @param {number} elapsed seconds of audio sent
   * @param {number | null} delay milliseconds
   */
  showWindow(event, results, elapsed, delay) {
    const first = this.results !== results;
    this.results = results;
    this.emotion.show(event);
    if (first) {
      this.bars.create(event.scores);
    } else {
      this.bars.update(event.scores);
    }
    if (delay !== null) {
      this.longestDelay = Math.max(this.longestDelay, delay);
      const values = { delay: (delay / 1000).toFixed(2), longest: (this.longestDelay / 1000).toFixed(2) };
      setText(find('live-delay', HTMLElement), 'live.delay.value', values);
    }
    find('live-count', HTMLElement).textContent = String(results.windows.length);
    find('live-skipped', HTMLElement).textContent = String(results.skipped);
    this.timeline.show(results, elapsed, false);
    this.#announce('live.announce.now', event);
  }

  /** @param {import('./live-stream.js').UtteranceEvent} event */
  showUtterance(event) {
    const { start, end, label, score } = event;
    const emotion = emotionOf(label);
    const item = make(
      'li',
      {},
      make('span', { class: 'number' }, `${clock(start, 1)} – ${clock(end, 1)}`),
      emojiElement(emotion),
      emotionElement(emotion, { class: 'name' }),
      make('span', { class: 'number value' }, percent(score)),
    );
    const list = find('live-utterances', HTMLElement);
    list.prepend(item);
    list.children[MAX_LISTED]?.remove();
    find('live-nothing', HTMLElement).hidden = true;
    this.#announce('live.announce.utterance', event);
  }

  /**
   * @param {import('./live-stream.js').ResultEvent} result
   * @param {LiveResults} results
   */
  showResult(result, results) {
    const none = results.labels.map((label) => ({ label, score: 0 }));
    this.emotion.show(result);
    this.bars.update(result.scores.length ? result.scores : none);
    find('live-speech', HTMLElement).textContent = durationText(result.speech_seconds);
  }

  /**
   * Show the whole of a stream that has ended.
   *
   * @param {LiveResults | null} results
   * @param {number} elapsed seconds of audio sent
   */
  showWhole(results, elapsed) {
    this.results = results;
    this.timeline.show(results, elapsed, true);
  }

  /** @param {number | null} time seconds */
  #showWindowAt(time) {
    const place = find('live-reading', HTMLElement);
    const window = time === null ? null : this.results?.windowAt(time);
    if (time === null || !this.results || !window) {
      setText(place, 'live.about');
      return;
    }
    const score = Math.max(...window.scores);
    const emotion = { emotion: this.results.emotions[window.scores.indexOf(score)] };
    setText(place, 'live.reading', { time: clock(time, 1), emotion, score: percent(score) });
  }

  /**
   * Announce an emotion to screen readers, unless it is the last announced one or too little time has passed.
   *
   * @param {'live.announce.now' | 'live.announce.utterance'} key
   * @param {{label: string, score: number}} emotion
   */
  #announce(key, { label, score }) {
    const now = performance.now();
    const announced = `${key} ${label}`;
    if (now - this.announcedAt >= ANNOUNCE_INTERVAL && this.announced !== announced) {
      this.announcedAt = now;
      this.announced = announced;
      const values = { emotion: { emotion: emotionOf(label) }, score: percent(score) };
      setText(find('live-announcement', HTMLElement), key, values);
    }
  }
}
