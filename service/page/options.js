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
    find('over-time', HTMLElement).hidden = value('granularity') !== 'frame';
    find('one-channel', HTMLElement).hidden = value('channels') !== 'one';
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
  if (value('granularity') === 'frame') {
    options.push(['granularity', 'frame']);
    for (const name of ['window', 'hop']) {
      if (value(name)) {
        options.push([name, value(name)]);
      }
    }
  }
  if (value('embedding') !== 'none') {
    options.push(['embedding', value('embedding')]);
  }
  if (value('embedding') === 'frame') {
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
