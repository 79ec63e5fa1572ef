// Runs in the browser's audio thread: gathers what the microphone gives into pieces of 16 bits.

/** Pieces each second: often enough that an answer need not wait for the end of one. */
const PIECES = 20;

class Gatherer extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(Math.round(sampleRate / PIECES));
    this.filled = 0;
    this.power = 0;
    this.over = false;
    this.port.onmessage = () => {
      this.over = true;
      this.give();
      this.port.postMessage(null); // that was the last
    };
  }

  /**
   * @param {Float32Array[][]} inputs
   * @returns {boolean} whether to go on
   */
  process([[samples]]) {
    if (this.over) {
      return false;
    }
    for (const sample of samples ?? []) {
      const bounded = Math.min(Math.max(sample, -1), 1);
      this.piece[this.filled++] = bounded < 0 ? bounded * 32_768 : bounded * 32_767;
      this.power += sample * sample;
      if (this.filled === this.piece.length) {
        this.give();
      }
    }
    return true;
  }

  give() {
    if (this.filled) {
      const samples = this.piece.slice(0, this.filled);
      this.port.postMessage({ samples, power: this.power / this.filled }, [samples.buffer]);
      this.filled = 0;
      this.power = 0;
    }
  }
}

registerProcessor('gatherer', Gatherer);
