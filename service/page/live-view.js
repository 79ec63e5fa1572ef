// The card of a live stream.

import { find, make } from './dom.js';
import { emoji, emotionOf } from './emotions.js';
import { clock, length, percent } from './format.js';
import { setEmotion, setText } from './language.js';
import { LiveTimeline } from './live-timeline.js';
import { showLevel } from './microphone.js';
import { Bars, EmotionBox } from './scores.js';

/** Utterances in the list; the files have all. */
const MOST_LISTED = 100;
/** Milliseconds between two things said to screen readers. */
const SAY_EVERY = 5000;
/** What there is nothing in before something is heard. */
const HEARD = ['live-heard', 'live-said', 'live-facts'];
const NUMBERS = ['live-delay', 'live-count', 'live-skipped'];

/** @typedef {import('./live-record.js').LiveRecord} LiveRecord */

/** What is seen of one stream after the other. */
export class LiveView {
  constructor() {
    this.card = find('live', HTMLElement);
    this.emotion = new EmotionBox(find('live-emotion', HTMLElement));
    this.bars = new Bars(find('live-scores', HTMLElement));
    this.timeline = new LiveTimeline(find('live-timeline', HTMLCanvasElement));
    /** @type {LiveRecord | null} */
    this.record = null;
    this.longestDelay = 0;
    this.saidAt = Number.NEGATIVE_INFINITY;
    this.said = '';
    const { canvas } = this.timeline;
    canvas.addEventListener('pointermove', ({ offsetX }) => {
      this.#readAt(this.timeline.timeAt(offsetX / canvas.clientWidth));
    });
    canvas.addEventListener('pointerleave', () => this.#readAt(null));
  }

  /** Begin with an empty card. */
  clear() {
    this.record = null;
    this.longestDelay = 0;
    this.said = '';
    this.saidAt = Number.NEGATIVE_INFINITY;
    this.emotion.clear();
    for (const id of ['live-utterances', 'live-scores', 'live-announcement']) {
      find(id, HTMLElement).replaceChildren();
    }
    for (const id of NUMBERS) {
      find(id, HTMLElement).removeAttribute('data-text');
      find(id, HTMLElement).textContent = '–';
    }
    find('live-nothing', HTMLElement).hidden = false;
    this.showHeard(0, null);
    this.timeline.show(null, 0, false);
  }

  /** @param {import('./live-session.js').State} state */
  become(state) {
    const going = !['ended', 'failed'].includes(state);
    const [start, stop] = [find('live-start', HTMLButtonElement), find('live-stop', HTMLButtonElement)];
    const hadFocus = [start, stop, this.card, document.body].includes(/** @type {any} */ (document.activeElement));
    this.card.dataset.state = state;
    setText(find('live-state', HTMLElement), `live.state.${state}`);
    setText(find('live-what', HTMLElement), state === 'ended' ? 'live.whole' : 'live.now');
    start.hidden = going;
    stop.hidden = !going;
    stop.disabled = state !== 'running';
    if (hadFocus) {
      const next = !going ? start : stop.disabled ? this.card : stop;
      next.focus({ preventScroll: true });
    }
    for (const id of HEARD) {
      find(id, HTMLElement).hidden = this.record === null && state !== 'running' && state !== 'ending';
    }
    for (const id of ['live-window', 'live-hop']) {
      find(id, HTMLInputElement).disabled = going;
    }
    find('live-take', HTMLElement).hidden = going || !this.record?.windows.length;
    find('live-speech-part', HTMLElement).hidden = state !== 'ended';
    if (!going) {
      showLevel('live-level', null);
    }
  }

  /**
   * @param {number} elapsed seconds that were sent
   * @param {number | null} power of what was heard last
   */
  showHeard(elapsed, power) {
    showLevel('live-level', power);
    find('live-time', HTMLElement).textContent = clock(elapsed, 1);
  }

  /** @param {(Node | string)[]} sentence what is to be said above everything, nothing to say nothing */
  notify(...sentence) {
    const notice = find('live-notice', HTMLElement);
    notice.replaceChildren(...sentence);
    notice.hidden = sentence.length === 0;
  }

  /**
   * @param {import('./stream.js').WindowEvent} event that the record has
   * @param {LiveRecord} record
   * @param {number} elapsed seconds that were sent
   * @param {number | null} delay milliseconds
   */
  showWindow(event, record, elapsed, delay) {
    const first = this.record !== record;
    this.record = record;
    this.emotion.show(event);
    if (first) {
      this.bars.make(event.scores);
    } else {
      this.bars.move(event.scores);
    }
    if (delay !== null) {
      this.longestDelay = Math.max(this.longestDelay, delay);
      const values = { delay: (delay / 1000).toFixed(2), longest: (this.longestDelay / 1000).toFixed(2) };
      setText(find('live-delay', HTMLElement), 'live.delay.value', values);
    }
    find('live-count', HTMLElement).textContent = String(record.windows.length);
    find('live-skipped', HTMLElement).textContent = String(record.skipped);
    this.timeline.show(record, elapsed, false);
    this.#say('live.say.now', event);
  }

  /** @param {import('./stream.js').UtteranceEvent} event */
  showUtterance(event) {
    const { start, end, label, score } = event;
    const emotion = emotionOf(label);
    const name = make('span', { class: 'name' });
    setEmotion(name, emotion);
    const item = make(
      'li',
      {},
      make('span', { class: 'number' }, `${clock(start, 1)} – ${clock(end, 1)}`),
      make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotion)),
      name,
      make('span', { class: 'number value' }, percent(score)),
    );
    const list = find('live-utterances', HTMLElement);
    list.prepend(item);
    list.children[MOST_LISTED]?.remove();
    find('live-nothing', HTMLElement).hidden = true;
    this.#say('live.say.utterance', event);
  }

  /**
   * @param {import('./stream.js').ResultEvent} result
   * @param {LiveRecord} record
   */
  showResult(result, record) {
    const none = record.labels.map((label) => ({ label, score: 0 }));
    this.emotion.show(result);
    this.bars.move(result.scores.length ? result.scores : none);
    find('live-speech', HTMLElement).textContent = length(result.speech_seconds);
  }

  /**
   * Show all of a stream that is over.
   *
   * @param {LiveRecord | null} record
   * @param {number} elapsed seconds that were sent
   */
  showWhole(record, elapsed) {
    this.record = record;
    this.timeline.show(record, elapsed, true);
  }

  /** @param {number | null} time seconds */
  #readAt(time) {
    const place = find('live-reading', HTMLElement);
    const window = time === null ? null : this.record?.windowAt(time);
    if (time === null || !this.record || !window) {
      setText(place, 'live.about');
      return;
    }
    const score = Math.max(...window.scores);
    const emotion = { emotion: this.record.emotions[window.scores.indexOf(score)] };
    setText(place, 'live.reading', { time: clock(time, 1), emotion, score: percent(score) });
  }

  /**
   * Say something to screen readers, unless it is what was said last, or too soon after it.
   *
   * @param {'live.say.now' | 'live.say.utterance'} key
   * @param {{label: string, score: number}} heard
   */
  #say(key, { label, score }) {
    const now = performance.now();
    const said = `${key} ${label}`;
    if (now - this.saidAt >= SAY_EVERY && this.said !== said) {
      this.saidAt = now;
      this.said = said;
      const values = { emotion: { emotion: emotionOf(label) }, score: percent(score) };
      setText(find('live-announcement', HTMLElement), key, values);
    }
  }
}
