// Listening to the microphone while somebody speaks: what the service hears in it, window by window.

import { find, make } from './dom.js';
import { askForKey } from './key.js';
import { LiveRecord } from './live-record.js';
import { LiveSession } from './live-session.js';
import { LiveView } from './live-view.js';
import { explainMicrophone, microphoneImpossible } from './microphone.js';
import { describeProblem } from './sentences.js';
import { csvBlob, save } from './takeaway.js';

const view = new LiveView();

/** @type {LiveSession | null} */
let session = null;
/** @type {LiveRecord | null} of the last stream */
let record = null;

/** Whether the card is on the page. */
export function isLiveOpen() {
  return !view.card.hidden;
}

/**
 * What is asked for in the card, as the API has it.
 *
 * @returns {import('./api.js').Options}
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
 * @param {() => import('./stream.js').Start} on.wishes beside those of this card, as the API has them
 * @param {() => void} on.changed called when the card has come or gone, or something else is asked for in it
 */
export function startLive({ wishes, changed }) {
  const opener = find('listen', HTMLButtonElement);
  const show = (/** @type {boolean} */ there) => {
    view.card.hidden = !there;
    changed();
  };
  opener.addEventListener('click', () => {
    const going = !view.card.hidden && !['ended', 'failed'].includes(view.card.dataset.state ?? 'ended');
    show(true);
    view.card.focus();
    if (!going) {
      listen(wishes);
    }
  });
  find('live-options', HTMLElement).addEventListener('input', changed);
  find('live-start', HTMLButtonElement).addEventListener('click', () => listen(wishes));
  find('live-stop', HTMLButtonElement).addEventListener('click', () => session?.stop());
  find('live-close', HTMLButtonElement).addEventListener('click', () => {
    session?.abandon();
    session = null;
    show(false);
    opener.focus();
  });
  const give = (
    /** @type {string} */ id,
    /** @type {string} */ suffix,
    /** @type {(record: LiveRecord) => Blob} */ content,
  ) =>
    find(id, HTMLButtonElement).addEventListener('click', () => {
      if (record) {
        save(`live-${record.began.toTimeString().slice(0, 8).replaceAll(':', '-')}.${suffix}`, content(record));
      }
    });
  give('live-json', 'json', (kept) => new Blob([kept.json()], { type: 'application/json' }));
  give('live-windows', 'windows.csv', (kept) => csvBlob(kept.windowRows()));
  give('live-csv', 'utterances.csv', (kept) => csvBlob(kept.utteranceRows()));
}

/** @param {() => import('./stream.js').Start} wishes */
async function listen(wishes) {
  session?.abandon();
  view.clear();
  record = null;
  const impossible = microphoneImpossible() ?? ('AudioWorkletNode' in window ? null : 'record.unsupported');
  if (impossible) {
    fail(make('p', { class: 'sentence', text: impossible, values: { origin: location.origin } }));
    return;
  }
  const mine = newSession();
  session = mine;
  view.notify(make('p', { class: 'sentence', text: 'record.asking' }));
  view.become('asking');
  const options = Object.fromEntries(liveOptions().map(([name, value]) => [name, Number(value)]));
  let problem;
  try {
    problem = await mine.run({ ...options, ...wishes() });
  } catch (error) {
    if (session === mine) {
      fail(make('p', { class: 'sentence', text: explainMicrophone(error) }));
    }
    return;
  }
  if (session !== mine) {
    return;
  }
  if (problem?.status === 401 && (await askForKey())) {
    listen(wishes);
    return;
  }
  view.showWhole(record, mine.elapsed);
  if (problem) {
    fail(describeProblem(problem));
  } else {
    view.become('ended');
  }
}

/** @param {HTMLElement} sentence */
function fail(sentence) {
  view.notify(sentence);
  view.become('failed');
}

function newSession() {
  const mine = new LiveSession({
    state(state) {
      view.notify();
      view.become(state);
    },
    heard: (power) => view.showHeard(mine.elapsed, power),
    ready(event) {
      record = new LiveRecord(event);
    },
    window(event, delay) {
      if (record) {
        record.addWindow(event);
        view.showWindow(event, record, mine.elapsed, delay);
      }
    },
    utterance(event) {
      record?.utterances.push(event);
      view.showUtterance(event);
    },
    result(event) {
      if (record) {
        record.result = event;
        view.showResult(event, record);
      }
    },
  });
  return mine;
}
