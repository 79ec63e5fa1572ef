// The API key, where the service requires one: the user enters it once, it is kept until the tab is closed.

import { find } from '../common/dom.js';
import { readSetting, saveSetting } from '../common/storage.js';

const NAME = 'api-key';

let key = readSetting(NAME, 'sessionStorage');

/** @type {Promise<boolean> | null} while the dialog is open */
let asking = null;

/** @type {(() => void)[]} called after a key was entered */
const listeners = [];

/**
 * Call `listener` whenever a key was entered.
 *
 * @param {() => void} listener
 */
export function onKeyChange(listener) {
  listeners.push(listener);
}

/** Whether there is a key. */
export function hasKey() {
  return key !== null;
}

/**
 * The headers that authorise a request.
 *
 * @returns {Record<string, string>}
 */
export function keyHeaders() {
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/**
 * The same for a WebSocket, for which scripts cannot set headers: subprotocols to offer. The service selects the first
 * and reads the key from the second.
 *
 * @returns {string[]}
 */
export function keyProtocols() {
  if (key === null) {
    return [];
  }
  const escaped = encodeURIComponent(key).replace(/[()]/g, (bracket) => (bracket === '(' ? '%28' : '%29'));
  return ['emotion2vec.stream', `bearer.${escaped}`];
}

/**
 * Ask the user for a key. Requests that need one at the same time share one dialog.
 *
 * @returns {Promise<boolean>} whether a key was entered
 */
export function askForKey() {
  asking ??= ask().finally(() => {
    asking = null;
  });
  return asking;
}

/** @returns {Promise<boolean>} */
function ask() {
  const dialog = find('key-dialog', HTMLDialogElement);
  const input = find('key-input', HTMLInputElement);
  find('key-refused', HTMLElement).hidden = key === null;
  input.value = '';
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      'close',
      () => {
        const given = dialog.returnValue === 'use' ? input.value.trim() : '';
        if (given) {
          key = given;
          saveSetting(NAME, given, 'sessionStorage');
          for (const listener of listeners) {
            listener();
          }
        }
        resolve(given !== '');
      },
      { once: true },
    );
  });
}
