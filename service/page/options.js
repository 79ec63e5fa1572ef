// The form of options: what is asked for, as the API has it. What is the API's default is left out.

import { find } from './dom.js';

const form = find('options', HTMLFormElement);

/**
 * Start the form.
 *
 * @param {() => void} changed called after each change
 */
export function startOptions(changed) {
  const update = () => {
    const granularity = value('granularity');
    find('over-time', HTMLElement).hidden = granularity !== 'frame';
    find('about-segments', HTMLElement).hidden = granularity !== 'segment';
    find('one-channel', HTMLElement).hidden = value('channels') !== 'one';
    const embedding = /** @type {HTMLSelectElement} */ (form.elements.namedItem('embedding'));
    const ofFrames = /** @type {HTMLOptionElement} */ (embedding.querySelector('[value=frame]'));
    ofFrames.disabled = granularity === 'segment'; // segments have one each, their frames none
    if (ofFrames.disabled && ofFrames.selected) {
      embedding.value = 'utterance';
    }
    changed();
  };
  form.addEventListener('input', update);
  form.addEventListener('submit', (event) => event.preventDefault());
  update();
}

/**
 * The options chosen.
 *
 * @returns {import('./api.js').Options}
 */
export function chosenOptions() {
  /** @type {import('./api.js').Options} */
  const options = [];
  const granularity = value('granularity');
  if (granularity !== 'utterance') {
    options.push(['granularity', granularity]);
  }
  if (granularity === 'frame') {
    for (const name of ['window', 'hop']) {
      if (value(name)) {
        options.push([name, value(name)]);
      }
    }
  }
  if (value('embedding') !== 'none') {
    options.push(['embedding', value('embedding')]);
  }
  if (value('embedding') === 'frame' || (value('embedding') === 'utterance' && granularity === 'segment')) {
    options.push(['encoding', 'base64']); // as numbers, minutes of them would be hundreds of megabytes
  }
  const channels = value('channels') === 'one' ? value('channel') || '0' : value('channels');
  if (channels !== 'mix') {
    options.push(['channels', channels]);
  }
  if (value('label_language') !== 'en') {
    options.push(['label_language', value('label_language')]);
  }
  if (!find('trim', HTMLInputElement).checked) {
    options.push(['trim', 'false']);
  }
  return options;
}

/** Ask for segments from now on. */
export function chooseSegments() {
  const choice = /** @type {RadioNodeList} */ (form.elements.namedItem('granularity'));
  choice.value = 'segment';
  form.dispatchEvent(new Event('input'));
}

/**
 * Whether two sets of options ask for the same.
 *
 * @param {import('./api.js').Options} one
 * @param {import('./api.js').Options} other
 */
export function sameOptions(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** @param {string} name */
function value(name) {
  return String(new FormData(form).get(name) ?? '');
}
