// Live recognition: sends the microphone to the service and shows the scores of each window.

import { askForKey } from '../api/api-key.js';
import { download, find, make } from '../common/dom.js';
import { timeOfDay } from '../common/format.js';
import { csvBlob } from '../export/csv.js';
import { problemElement } from '../i18n/problem-text.js';
import { microphoneError, microphoneUnavailable } from '../input/microphone.js';
import { LiveCard } from './live-card.js';
import { LiveResults } from './live-results.js';
import { LiveSession } from './live-session.js';

const card = new LiveCard();

/** @type {LiveSession | null} */
let session = null;
/** @type {LiveResults | null} of the last stream */
let results = null;

/** Whether the card is open. */
export function isLiveOpen() {
  return !card.element.hidden;
}

/**
 * The options in the card, as names and values of the API.
 *
 * @returns {import('../api/http-api.js').Options}
 */
export function liveOptions() {
  const { value: window } = find('live-window', HTMLInputElement);
  const { value: hop } = find('live-hop', HTMLInputElement);
  return [
    ['window', window || '3'],
    ['hop', hop || '1'],
  ];
}

/**
 * Connect the buttons, once.
 *
 * @param {object} on
 * @param {() => import('./live-stream.js').StreamOptions} on.fileOptions the options of files that apply to live streams as well
 * @param {() => void} on.onChange called when the card was opened or closed, or its options have changed
 */
export function startLive({ fileOptions, onChange }) {
  const opener = find('open-live', HTMLButtonElement);
  const show = (/** @type {boolean} */ open) => {
    card.element.hidden = !open;
    onChange();
  };
  opener.addEventListener('click', () => {
    const running = !card.element.hidden && !['ended', 'failed'].includes(card.element.dataset.state ?? 'ended');
    show(true);
    card.element.focus();
    if (!running) {
      run(fileOptions);
    }
  });
  find('live-options', HTMLElement).addEventListener('input', onChange);
  find('live-start', HTMLButtonElement).addEventListener('click', () => run(fileOptions));
  find('live-stop', HTMLButtonElement).addEventListener('click', () => session?.stop());
  find('live-close', HTMLButtonElement).addEventListener('click', () => {
    session?.cancel();
    session = null;
    show(false);
    opener.focus();
  });
  const connectDownload = (
    /** @type {string} */ id,
    /** @type {string} */ suffix,
    /** @type {(results: LiveResults) => Blob} */ content,
  ) =>
    find(id, HTMLButtonElement).addEventListener('click', () => {
      if (results) {
        download(`live-${timeOfDay(results.startedAt)}.${suffix}`, content(results));
      }
    });
  connectDownload('live-json', 'json', (all) => new Blob([all.json()], { type: 'application/json' }));
  connectDownload('live-windows', 'windows.csv', (all) => csvBlob(all.windowRows()));
  connectDownload('live-csv', 'utterances.csv', (all) => csvBlob(all.utteranceRows()));
}

/** @param {() => import('./live-stream.js').StreamOptions} fileOptions */
async function run(fileOptions) {
  session?.cancel();
  card.clear();
  results = null;
  const unavailable = microphoneUnavailable() ?? ('AudioWorkletNode' in window ? null : 'record.unsupported');
  if (unavailable) {
    fail(make('p', { class: 'sentence', text: unavailable, values: { origin: location.origin } }));
    return;
  }
  const mine = newSession();
  session = mine;
  card.notify(make('p', { class: 'sentence', text: 'record.asking' }));
  card.setState('asking');
  const options = Object.fromEntries(liveOptions().map(([name, value]) => [name, Number(value)]));
  let problem;
  try {
    problem = await mine.run({ ...options, ...fileOptions() });
  } catch (error) {
    if (session === mine) {
      fail(make('p', { class: 'sentence', text: microphoneError(error) }));
    }
    return;
  }
  if (session !== mine) {
    return;
  }
  if (problem?.status === 401 && (await askForKey())) {
    run(fileOptions);
    return;
  }
  card.showWhole(results, mine.elapsed);
  if (problem) {
    fail(problemElement(problem));
  } else {
    card.setState('ended');
  }
}

/** @param {HTMLElement} message */
function fail(message) {
  card.notify(message);
  card.setState('failed');
}

function newSession() {
  const mine = new LiveSession({
    state(state) {
      card.notify();
      card.setState(state);
    },
    level: (power) => card.showAudio(mine.elapsed, power),
    ready(event) {
      results = new LiveResults(event);
    },
    window(event, delay) {
      if (results) {
        results.addWindow(event);
        card.showWindow(event, results, mine.elapsed, delay);
      }
    },
    utterance(event) {
      results?.utterances.push(event);
      card.showUtterance(event);
    },
    result(event) {
      if (results) {
        results.result = event;
        card.showResult(event, results);
      }
    },
  });
  return mine;
}
